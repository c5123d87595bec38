import json
import sys

import pytest

from lightning_ss2a.builders.listing import CaptionItems, FolderItems, MusicItems, list_items
from lightning_ss2a.errors import InputError
from tests.builders.listing.test_media_files import make

AVSYNC = {
    "folder": "videos", "lists": {"train": "train.txt", "test": "test.txt"}, "group_pattern": ".{11}",
}  # fmt: skip


def by_key(listing) -> dict:
    return {item.key: item for item in (*listing.items, *listing.missing)}


def test_plain_videos(tmp_path):
    folder = make(tmp_path / "my_clips", "dog/1.mp4", "cat_big/2.webm", "3.mkv", "notes.txt", "dog/1.wav")
    items = by_key(list_items(str(folder), FolderItems()))
    assert {key: (item.video, item.class_name, item.name, item.split) for key, item in items.items()} == {
        "dog/1.mp4": ("dog/1.mp4", "dog", "1", None),
        "cat_big/2.webm": ("cat_big/2.webm", "cat big", "2", None),
        "3.mkv": ("3.mkv", "my clips", "3", None),
    }
    assert all(item.group is None and item.sound is None for item in items.values())


@pytest.mark.parametrize(("kind", "expected"), [("picture", "a.png"), ("sound", "b.wav"), ("video", "c.mp4")])
def test_other_kinds(tmp_path, kind, expected):
    (item,) = list_items(str(make(tmp_path, "a.png", "b.wav", "c.mp4")), FolderItems(kind=kind, sources=1)).items
    assert item.files == (expected,)
    assert getattr(item, kind) == expected
    assert item.sources == 1


def test_avsync15(tmp_path):
    names = ["5Uodeo_Ln84_000014_000024_6.5_9.5_clip-00.mp4", "5Uodeo_Ln84_000014_000024_0.5_3.5_clip-01.mp4"]
    make(tmp_path, *(f"videos/lions_roaring/{name}" for name in names), "videos/hammering/unlisted_.mp4")
    (tmp_path / "train.txt").write_text("".join(f"lions_roaring/{name}\n" for name in names))
    (tmp_path / "test.txt").write_text("hammering/3yXCtpvjz6E_000017_000027-1.0_4.5_clip-00.mp4\n")
    listing = list_items(str(tmp_path), FolderItems(**AVSYNC))
    assert [item.key for item in listing.items] == [f"lions_roaring/{name}" for name in names]
    first, dead = listing.items[0], listing.missing[0]
    assert first.video == f"videos/lions_roaring/{names[0]}"
    assert (first.class_name, first.group, first.split) == ("lions roaring", "5Uodeo_Ln84", "train")
    assert (dead.class_name, dead.group, dead.split) == ("hammering", "3yXCtpvjz6E", "test")
    assert first.place == f"{tmp_path}/train.txt entry 1"


def test_imagehear(tmp_path):
    make(tmp_path, "bongo1.jpg", "bongo12.jpg", "ice_cream 3.jpg", "7.jpg")
    listing = list_items(str(tmp_path), FolderItems(kind="picture", class_from="name"))
    assert {item.key: item.class_name for item in listing.items} == {
        "bongo1.jpg": "bongo", "bongo12.jpg": "bongo", "ice_cream 3.jpg": "ice cream", "7.jpg": "7"
    }  # fmt: skip
    assert all(item.heard is None and item.seen == "picture" for item in listing.items)


def test_wrong_folders(tmp_path):
    make(tmp_path, "videos/dog/short.mp4", "file")
    with pytest.raises(InputError, match="file: not a folder"):
        list_items(str(tmp_path / "file"), FolderItems())
    with pytest.raises(InputError, match=r"train\.txt: cannot be read as a list of names"):
        list_items(str(tmp_path), FolderItems(**AVSYNC))
    with pytest.raises(InputError, match="its name does not begin as group_pattern says"):
        list_items(str(tmp_path), FolderItems(group_pattern=".{11}"))
    with pytest.raises(InputError, match="is no regular expression"):
        FolderItems(group_pattern="(")
    with pytest.raises(InputError, match="no such folder"):
        list_items(str(tmp_path), FolderItems(folder="none"))
    with pytest.raises(InputError, match="lists nothing"):
        list_items(str(tmp_path), FolderItems(kind="sound"))


# Captions

EPIDEMIC = {
    "text": ["Wrestling Crowd", "the sounds of wrestling crowd, mezzanine level, and loop."],
    "tag": ["Crowds", "applause"],
    "original_data": {"title": "Wrestling Crowd"},
}


def write_captions(folder, **contents):
    for stem, content in contents.items():
        path = folder / f"{stem.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_sounds_with_captions(tmp_path):
    write_captions(
        tmp_path, train__1=EPIDEMIC, test__2={"text": "Busy French\nVillage Street "},
        test__3={"text": ["x"], "tag": []}, train__sizes={"name0.tar": 512}, train__list="[1, 2]",
    )  # fmt: skip
    make(tmp_path, "train/1.flac", "test/2.wav", "train/9.flac")
    listing = list_items(str(tmp_path), CaptionItems())
    items = by_key(listing)
    assert [item.key for item in listing.missing] == ["test/3"]
    assert items["test/3"].sound == "test/3.flac"
    one, two = items["train/1"], items["test/2"]
    assert (one.text, one.sound, one.class_name, one.split) == ("Wrestling Crowd", "train/1.flac", "Crowds", "train")
    assert (two.text, two.sound, two.class_name) == ("Busy French Village Street", "test/2.wav", two.text)
    assert {item.pair_origin for item in items.values()} == {"translated"}
    assert all(item.seen == "text" for item in items.values())


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_captions_in_linked_folders_are_read(tmp_path):
    make(tmp_path, "elsewhere/1.flac", "set/.hidden")
    (tmp_path / "elsewhere" / "1.json").write_text(json.dumps(EPIDEMIC))
    (tmp_path / "set" / "train").symlink_to(tmp_path / "elsewhere")
    assert by_key(list_items(str(tmp_path / "set"), CaptionItems()))["train/1"].sound == "train/1.flac"


def test_another_caption(tmp_path):
    make(write_captions(tmp_path, a=EPIDEMIC, b={"text": "only one"}), "a.flac", "b.flac")
    items = by_key(list_items(str(tmp_path), CaptionItems(caption=1)))
    assert items["a"].text.startswith("the sounds of wrestling crowd")
    assert items["b"].text == "only one"
    assert items["a"].split is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"text": 7}, r"a\.json: text is no text or list of texts: '7'"),
        ({"text": ["x", 7]}, r"a\.json: text is no text or list of texts"),
        ({"text": []}, r"a\.json: text is empty"),
        ({"text": " "}, r"a\.json: text is empty"),
        ({"text": "x", "tag": 7}, r"a\.json: tag is no text or list of texts"),
        ("{", r"a\.json: not a JSON file"),
    ],
)
def test_wrong_captions(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        list_items(str(write_captions(tmp_path, a=content)), CaptionItems())


def test_captions_count_from_zero():
    with pytest.raises(InputError, match="caption must be at least 0, found -1"):
        CaptionItems(caption=-1)


# MUSIC

SOLOS = {"version": 1.0, "videos": {"acoustic_guitar": ["8DHG_hVSw1o", "XbOYpwFkn7o"], "flute": ["RWP6BHh_c7Y"]}}
DUETS = {"version": 1.0, "videos": {"xylophone acoustic_guitar": ["pIPr-lp0C6E"]}}


def test_music(tmp_path):
    (tmp_path / "MUSIC21_solo_videos.json").write_text(json.dumps(SOLOS))
    (tmp_path / "MUSIC_duet_videos.json").write_text(json.dumps(DUETS))
    make(tmp_path, "solo/acoustic_guitar/8DHG_hVSw1o.mp4", "pIPr-lp0C6E.webm")
    listing = list_items(str(tmp_path), MusicItems(window=(30.0, 40.0)))
    items = by_key(listing)
    assert [item.key for item in listing.missing] == ["XbOYpwFkn7o", "RWP6BHh_c7Y"]
    solo, duet = items["8DHG_hVSw1o"], items["pIPr-lp0C6E"]
    assert (solo.video, solo.class_name, solo.sources) == (
        "solo/acoustic_guitar/8DHG_hVSw1o.mp4", "acoustic guitar", 1
    )  # fmt: skip
    assert (duet.video, duet.class_name, duet.sources) == ("pIPr-lp0C6E.webm", "xylophone and acoustic guitar", 2)
    assert solo.window == (30.0, 40.0)
    assert solo.group == solo.key
    assert [item.key for item in list_items(str(tmp_path), MusicItems(), sources="multi").items] == ["pIPr-lp0C6E"]


def test_ids_that_both_lists_of_solos_have_come_once(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(SOLOS))
    listing = list_items(str(tmp_path), MusicItems(files=("a.json", "b.json")))
    assert len(listing.missing) == len(listing.repeated) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "has no mapping 'videos' of instruments to YouTube ids"),
        ({"videos": ["8DHG_hVSw1o"]}, "has no mapping 'videos'"),
        ({"videos": {"flute": [7]}}, "videos: flute is no text or list of texts"),
    ],
)
def test_wrong_lists_of_music(tmp_path, content, message):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        list_items(str(tmp_path / "x.json"), MusicItems())


def test_music_without_lists(tmp_path):
    with pytest.raises(InputError, match=r"MUSIC21_solo_videos\.json: cannot be read"):
        list_items(str(tmp_path), MusicItems())
    with pytest.raises(InputError, match="files must name at least one"):
        MusicItems(files=())
