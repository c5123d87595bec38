import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ss2a.builders.listing import Item, hash_ids, ids_text
from lightning_ss2a.errors import InputError


def item(**options) -> Item:
    return Item("list row 1", key="k", name="n", class_name="c", **options)


@pytest.mark.parametrize(
    ("options", "seen", "heard", "files"),
    [
        ({"picture": "a.png", "sound": "a.wav"}, "picture", "a.wav", ("a.png", "a.wav")),
        ({"picture": "a.png"}, "picture", None, ("a.png",)),
        ({"video": "a.mp4"}, "video", "a.mp4", ("a.mp4",)),
        ({"video": "a.mp4", "sound": "a.wav"}, "video", "a.wav", ("a.mp4", "a.wav")),
        ({"text": "a dog", "sound": "a.wav"}, "text", "a.wav", ("a.wav",)),
        ({"text": "a dog"}, "text", None, ()),
        ({"sound": "a.wav"}, "nothing", "a.wav", ("a.wav",)),
    ],
)
def test_what_is_seen_and_heard(options, seen, heard, files):
    found = item(**options)
    assert (found.seen, found.heard, found.files) == (seen, heard, files)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither picture, video, text nor sound is given"),
        ({"picture": "a", "video": "b"}, "both picture and video are given; name one of them"),
        ({"video": "a", "text": "b"}, "both video and text are given"),
        ({"video": "a", "pair_origin": "found"}, "pair_origin 'found' is not one of annotated, curated, translated"),
        ({"video": "a", "window": (5.0, 5.0)}, "the clip from 5 s to 5 s is none"),
        ({"video": "a", "window": (-1.0, 5.0)}, "the clip from -1 s to 5 s is none"),
        ({"video": "a", "window": (0.0, float("nan"))}, "the clip from 0 s to nan s is none"),
        ({"video": "a", "window": (0.0, float("inf"))}, "the clip from 0 s to inf s is none"),
    ],
)
def test_items_that_cannot_be(options, message):
    with pytest.raises(InputError, match=rf"^list row 1: {message}"):
        item(**options)


@given(keys=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=8), data=st.data())
def test_the_hash_of_ids_is_that_of_their_file_in_whatever_order(keys, data):
    shuffled = data.draw(st.permutations(keys)) + keys[:2]
    assert hash_ids(keys) == hash_ids(shuffled) == hashlib.sha256(ids_text(keys).encode()).hexdigest()
    assert ids_text(keys).split("\n") == [*sorted(set(keys)), ""]


def test_the_hash_of_other_ids_is_another():
    assert len({hash_ids(keys) for keys in ([], ["a"], ["b"], ["a", "b"], ["ab"])}) == 5
