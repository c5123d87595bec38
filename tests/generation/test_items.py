"""What is asked for: by options, by a CSV file, by a folder."""

from pathlib import Path
from typing import Any

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.items import Item, item_of_options, list_items, safe_key


def by_options(**options: Any) -> Item:
    every = dict.fromkeys(("image", "text", "audio", "video", "sources_file", "weight"))
    return item_of_options(**(every | options))


def test_options_make_one_item_named_by_its_first_medium():
    item = by_options(image=["a/farm.png", "b.png"], text=[" rain "], weight=["rain=0.5", "a=b=2"])
    assert (item.key, item.images, item.texts) == ("farm", ("a/farm.png", "b.png"), (" rain ",))
    assert item.weights == (("rain", 0.5), ("a=b", 2.0))
    assert by_options(text=["rain on a tin roof!"]).key == "rain_on_a_tin_roof"
    assert by_options(sources_file="x/farm.scene.yaml").key == "farm"
    assert by_options(audio=["a.wav"], key="my own").key == "my_own"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to sound: name an image, a text, an audio, a video or a sources_file"),
        ({"text": ["  "]}, "a text is empty"),
        ({"video": ["a.mp4", "b.mp4"]}, "2 videos; each is an item of its own"),
        ({"text": ["rain"], "weight": ["rain=-1"]}, "weight of rain is -1, needs at least 0"),
        ({"text": ["rain"], "weight": ["rain=nan"]}, "weight of rain is nan, needs at least 0"),
        ({"text": ["rain"], "weight": ["rain"]}, "weight 'rain': needs NAME=NUMBER"),
        ({"text": ["rain"], "weight": ["rain=loud"]}, "weight 'rain=loud': needs NAME=NUMBER"),
        ({"text": ["rain"], "weight": ["=2"]}, "weight '=2': needs NAME=NUMBER"),
    ],
)
def test_what_options_cannot_ask_for(options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=f"^{message}"):
        by_options(**options)


def test_a_row_is_an_item(tmp_path: Path):
    (tmp_path / "items.csv").write_text(
        "key,image,text,weight,ignored\n,farm.png,rain; wind,cow=0.5; rain=2,x\nsecond,,thunder,,\n,,thunder,,\n"
    )
    first, second, third = list_items(str(tmp_path / "items.csv"))
    assert first.images == (str(tmp_path / "farm.png"),)
    assert (first.key, first.texts, first.place) == ("farm", ("rain", "wind"), f"{tmp_path}/items.csv row 2")
    assert first.weights == (("cow", 0.5), ("rain", 2.0))
    assert (second.key, third.key) == ("second", "thunder")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\n", "lists nothing"),
        ("text\nrain\nrain\n", "row 3: the same key as .*row 2, 'rain'"),
        ("text,weight\nrain,rain\n", "row 2: weight 'rain': needs NAME=NUMBER"),
        ("text,weight\nrain,rain=-1\n", "row 2: weight of rain is -1"),
        ("key,text\na,\n", "row 2: nothing to sound"),
        ("image,image\na,b\n", "the header has 2 columns 'image'"),
    ],
)
def test_a_wrong_list_is_named_by_file_and_row(tmp_path: Path, text: str, message: str):
    (tmp_path / "items.csv").write_text(text)
    with pytest.raises(InputError, match=f"items.csv:? {message}".replace("csv:? row", "csv row")):
        list_items(str(tmp_path / "items.csv"))
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        list_items(str(tmp_path / "nowhere.csv"))


def test_a_folder_has_an_item_for_each_medium(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    for name in ("a.png", "deep/a.png", "b.wav", "c.mp4", "notes.txt"):
        (tmp_path / name).touch()
    items = {item.key: item for item in list_items(str(tmp_path))}
    assert set(items) == {"a", "deep_a", "b", "c"}
    assert items["deep_a"].images == (str(tmp_path / "deep" / "a.png"),)
    assert items["b"].audios == (str(tmp_path / "b.wav"),)
    assert items["c"].videos == (str(tmp_path / "c.mp4"),)


def test_keys_are_names_of_files():
    assert safe_key("a/b c:d.e-f") == "a_b_c_d.e-f"
    assert safe_key("...") == "sound"
    assert len(safe_key("x" * 300)) == 100
