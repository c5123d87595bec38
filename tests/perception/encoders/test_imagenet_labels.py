import pytest

from lightning_ss2a.perception.encoders.imagenet_labels import FILE, imagenet_labels


def test_the_names_are_in_imagenets_order():
    labels = imagenet_labels()
    assert len(labels) == 1000
    assert [labels[i] for i in (0, 7, 134, 281, 517, 889, 999)] == [
        *("tench", "rooster", "crane bird", "tabby cat", "construction crane", "violin", "toilet paper")
    ]
    assert all(label == label.strip() for label in labels)


def test_the_order_is_that_of_another_list():
    """Torchvision's names differ, in words more than in meaning: most share a word."""
    metadata = pytest.importorskip("torchvision.models._meta")
    pairs = zip(imagenet_labels(), metadata._IMAGENET_CATEGORIES, strict=True)
    shared = [bool(set(ours.lower().split()) & set(theirs.lower().split())) for ours, theirs in pairs]
    assert sum(shared) > 850


def test_the_file_says_where_the_names_are_from():
    header = FILE.read_text().split("tench")[0]
    assert "OpenAI" in header
    assert "Permission is hereby granted" in header
