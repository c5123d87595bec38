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


def test_a_key_is_short_enough_for_a_file_in_any_script():
    for text in ("雨" * 300, "é" * 300, "rain " * 300):
        key = safe_key(text)
        assert 90 < len(key.encode()) <= 100
        assert text.replace(" ", "_").startswith(key)


def test_a_scene_file_gives_the_name_that_it_was_saved_under(tmp_path: Path):
    assert by_options(sources_file="x/my.photo.scene.yaml").key == "my.photo"
    assert by_options(sources_file="x/mine.yaml").key == "mine"
    (tmp_path / "items.csv").write_text("sources_file\nmy.photo.scene.yaml\n")
    assert list_items(str(tmp_path / "items.csv"))[0].key == "my.photo"


def test_weights_name_files_as_the_row_does(tmp_path: Path):
    (tmp_path / "items.csv").write_text("image,audio,weight\na.png,b.wav,a.png=2; b.wav=3; dog=4\n")
    (item,) = list_items(str(tmp_path / "items.csv"))
    assert item.weights == ((item.images[0], 2.0), (item.audios[0], 3.0), ("dog", 4.0))


def test_media_that_differ_in_their_suffix_alone_are_items_of_their_own(tmp_path: Path):
    for name in ("x.png", "x.jpg", "y.png", "s/x.wav", "s/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    keys = {item.place.removeprefix(f"{tmp_path}/"): item.key for item in list_items(str(tmp_path))}
    assert keys == {"x.png": "x.png", "x.jpg": "x.jpg", "y.png": "y", "s/x.wav": "s_x.wav", "s/x.mp4": "s_x.mp4"}


def test_sounds_that_were_made_are_no_media(tmp_path: Path):
    (tmp_path / "out").mkdir()
    for name in ("a.png", "out/a.wav"):
        (tmp_path / name).write_bytes(b"")
    assert [item.key for item in list_items(str(tmp_path), str(tmp_path / "out"))] == ["a"]
    with pytest.raises(InputError, match="is the folder of the media, too; choose another output"):
        list_items(str(tmp_path), str(tmp_path / "out/.."))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\n", "lists nothing"),
        ("text,wieght\nrain,rain=2\n", "the header has a column 'wieght'; did you mean weight?"),
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


def test_the_table_of_what_failed_is_no_list_for_its_own_folder(tmp_path: Path):
    path = tmp_path / "failed.csv"
    path.write_text("key,place,reason,text\na,x.csv row 2,no label,rain\n")
    with pytest.raises(InputError, match=r"failed\.csv: is written anew by this call, or removed; copy it"):
        list_items(str(path), str(tmp_path))
    assert [item.texts for item in list_items(str(path), str(tmp_path / "elsewhere"))] == [("rain",)]


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
    assert safe_key("_0TBp3ZPXBc_000364") == "_0TBp3ZPXBc_000364"  # as other methods name their files
    assert safe_key("(rain)") == "rain"
    assert safe_key(".hidden") == "hidden"
    assert len(safe_key("x" * 300)) == 100
