from pathlib import Path

import pytest

from lightning_ss2a.perception.curation import MOST_OF_A_NAME, MOST_OF_A_SERIES, curate, named, words
from lightning_ss2a.perception.pairs import Pair


def pair(name: str, sound: str, image: str = "a/none.png") -> Pair:
    return Pair("row", image, sound, name, "class", group=None, origin="annotated")


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redApples_02", ["red", "apple"]),
        ("sea-lion", ["sea", "lion"]),
        ("glass", ["glass"]),
        ("bus", ["bus"]),
        ("Prawns_a1", ["prawn"]),
        ("03", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("green_duck", "duck"),  # the last word is the thing
        ("apple_green", "lincity_Green"),
        ("guitar_electric_bass", "electric_guitar"),  # the name of most words
        ("guitar_classical", "guitar"),
        ("catfish", None),  # a part of a word is none
        ("A white kitten.", None),
        ("", None),
    ],
)
def test_the_name_that_a_text_says(text, expected):
    assert named(text, ["duck", "lincity_Green", "guitar", "electric_guitar", "cat"]) == expected


def test_a_name_without_words_is_never_said():
    assert named("anything 7", ["7", "lincity_"]) is None


def test_pictures_go_to_the_sound_of_their_name(tmp_path):
    touch(tmp_path, "p/x/big_dog.png", "q/x/dog.svg", "p/cats/kitten.png", "p/x/notes.txt", "p/x/tree.png")
    (tmp_path / "p/x/gun.png").touch()
    (tmp_path / "p/x/gun.txt").write_text("It last saw service long ago.\nDog in another language\n")
    annotated = [pair("dog", "p/dog.ogg"), pair("dog", "q/dog.ogg"), pair("cat", "q/cat.ogg"), pair("saw", "p/saw.ogg")]
    found = {match.image: (match.pair.sound, match.found_in) for match in curate(tmp_path, annotated)}
    assert found == {
        "p/x/big_dog.png": ("p/dog.ogg", 0),  # of its own package
        "q/x/dog.svg": ("q/dog.ogg", 0),
        "p/x/gun.png": ("p/saw.ogg", 1),  # nobody looks at the picture
        "p/cats/kitten.png": ("q/cat.ogg", 2),
    }


def test_pictures_that_have_a_pair_are_left_out_and_so_are_they_in_another_format(tmp_path):
    touch(tmp_path, "p/x/dog.png", "p/x/dog.svg", "p/x/dog2.png", "p/x/dog2.svg")
    found = curate(tmp_path, [pair("dog", "p/dog.ogg", image="p/x/dog.png")])
    assert [match.image for match in found] == ["p/x/dog2.png"]


def test_a_series_and_a_name_give_only_so_many_pictures(tmp_path):
    touch(tmp_path, *(f"p/x/dog{i}.png" for i in range(9)))
    assert len(curate(tmp_path, [pair("dog", "p/dog.ogg")])) == MOST_OF_A_SERIES
    touch(tmp_path, *(f"p/x/dog{letter * 2}.png" for letter in "abc"), *(f"p/{i}/dog.png" for i in range(20)))
    assert len(curate(tmp_path, [pair("dog", "p/dog.ogg")])) == MOST_OF_A_NAME
