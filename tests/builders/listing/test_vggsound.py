import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ss2a.builders.listing import VGGSound, VGGSoundSource, list_items
from lightning_ss2a.builders.listing.vggsound import clip_key, parse_clip_name
from lightning_ss2a.errors import InputError
from tests.builders.listing.test_media_files import make

CSV = """---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,waterfall burbling,train
-0jeONf82dE,0,"horse clip-clop, trot",train
_0TBp3ZPXBc,364,playing cello,train
"""
"""Rows as VGGSound's authors wrote them."""


def write(folder, text=CSV):
    (folder / "vggsound.csv").write_text(text)
    return folder


def test_the_csv_file_of_its_authors(tmp_path):
    items = list_items(str(write(tmp_path)), VGGSound()).missing
    assert [item.key for item in items] == [
        "---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "-0jeONf82dE_000000", "_0TBp3ZPXBc_000364"
    ]  # fmt: skip
    assert [item.class_name for item in items][2] == "horse clip-clop, trot"
    assert [item.split for item in items] == ["test", "train", "train", "train"]
    assert (items[0].group, items[0].video) == ("---g-f_I2yQ", "---g-f_I2yQ_000001.mp4")
    assert {item.pair_origin for item in items} == {"curated"}
    assert items[0].place == f"{tmp_path}/vggsound.csv row 1"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["v/_0TBp3ZPXBc_000364.mp4"], ("v/_0TBp3ZPXBc_000364.mp4", None, None, None)),
        (["_0TBp3ZPXBc_364.webm"], ("_0TBp3ZPXBc_364.webm", None, None, None)),
        (["_0TBp3ZPXBc_364_374.mkv"], ("_0TBp3ZPXBc_364_374.mkv", None, None, None)),
        (["_0TBp3ZPXBc_000364_000374.mp4"], ("_0TBp3ZPXBc_000364_000374.mp4", None, None, None)),
        (["a/b/_0TBp3ZPXBc_364000_374000.mp4"], ("a/b/_0TBp3ZPXBc_364000_374000.mp4", None, None, None)),
        (["_0TBp3ZPXBc.mp4"], ("_0TBp3ZPXBc.mp4", None, None, (364.0, 374.0))),
        (
            ["frames/_0TBp3ZPXBc_000364.jpg", "audio/_0TBp3ZPXBc_000364.wav"],
            (None, "frames/_0TBp3ZPXBc_000364.jpg", "audio/_0TBp3ZPXBc_000364.wav", None),
        ),
        (
            ["_0TBp3ZPXBc.mp4", "_0TBp3ZPXBc_000364.jpg", "_0TBp3ZPXBc_000364.wav", "_0TBp3ZPXBc_364000_374000.mp4"],
            ("_0TBp3ZPXBc_364000_374000.mp4", None, None, None),
        ),
    ],
)
def test_names_that_clips_may_have(tmp_path, files, expected):
    make(write(tmp_path), *files)
    (item,) = list_items(str(tmp_path), VGGSound()).items
    assert item.key == "_0TBp3ZPXBc_000364"
    assert (item.video, item.picture, item.sound, item.window) == expected


def test_clips_that_are_elsewhere(tmp_path):
    make(tmp_path / "clips", "_0TBp3ZPXBc_000364.mp4")
    (tmp_path / "lists").mkdir()
    source = write(tmp_path / "lists") / "vggsound.csv"
    listing = list_items(str(source), VGGSound(), media_root=str(tmp_path / "clips"))
    assert (len(listing.items), len(listing.missing)) == (1, 3)


@given(
    video=st.text("aZ9-_", min_size=11, max_size=11),
    start=st.integers(0, 40_000),
    suffix=st.sampled_from(["", ".mp4", ".wav"]),
)
def test_every_name_of_a_clip_means_it(video, start, suffix):
    end = start + 10
    names = [
        f"{video}_{start:06d}", f"{video}_{start}", f"{video}_{start}_{end}", f"{video}_{start:06d}_{end:06d}",
        f"{video}_{start * 1000}_{end * 1000}",
    ]  # fmt: skip
    assert {parse_clip_name(name + suffix) for name in names} == {clip_key(video, start)}
    assert parse_clip_name(video) == video


def test_the_exclusion_list_of_synchformer(tmp_path):
    """Its lines, some with suffix; and a whole video by its id."""
    (tmp_path / "bad.txt").write_text(
        "---g-f_I2yQ_1000_11000\n-0jeONf82dE_0_10000.mp4\n\n_0TBp3ZPXBc\nxxxxxxxxxxx_1_2\n"
    )
    listing = list_items(str(write(tmp_path)), VGGSound(), exclude=str(tmp_path / "bad.txt"))
    assert listing.excluded == ("---g-f_I2yQ_000001", "-0jeONf82dE_000000", "_0TBp3ZPXBc_000364")
    assert [item.key for item in listing.missing] == ["--0PQM4-hqg_000030"]


def test_vggsound_without_the_videos_that_vggss_annotates(tmp_path):
    """One clip of theirs is annotated, another of the same video is not, and goes with it."""
    rows = "abcdefghijk,10,x,test\nabcdefghijk,50,x,test\nlmnopqrstuv,0,x,test\nlmnopqrstuv,5,x,train\n"
    boxes = tmp_path / "vggss.json"
    boxes.write_text(json.dumps([{"file": "abcdefghijk_000010", "class": "x", "bbox": [[0, 0, 1, 1]]}]))
    listing = list_items(str(write(tmp_path, rows)), VGGSound(), splits=["test"], exclude=str(boxes))
    assert listing.excluded == ("abcdefghijk_000010", "abcdefghijk_000050")
    assert [item.key for item in listing.missing] == ["lmnopqrstuv_000000"]
    boxes.write_text("{}")
    with pytest.raises(InputError, match=r"vggss\.json: not a list of clips"):
        list_items(str(tmp_path), VGGSound(), exclude=str(boxes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---g-f_I2yQ,1,marching,val\n", "row 1: split 'val' is not one of train, test"),
        ("---g-f_I2yQ,1.5,marching,test\n", "row 1: start_seconds '1.5' is no whole number of seconds"),
        ("---g-f_I2yQ,1,marching\n", "row 1: column split is empty"),
        ("---g-f_I2yQ,1,horse, trot,test\n", "row 1: 5 cells under 4 columns"),
        ("youtube_id,start_seconds,label,split\n", "row 1: split 'split' is not one of train, test"),
        ("", "lists nothing"),
    ],
)
def test_wrong_csv_files(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        list_items(str(write(tmp_path, text)), VGGSound())


# VGG-SS

ENTRIES = [
    {"file": "zpWuikVorYg_000032", "class": "elk bugling", "bbox": [[0.403125, 0.253125, 0.6, 0.75]]},
    {
        "file": "UyCw7pCgYg8_000055", "class": "tap dancing",
        "bbox": [[0.5, 0.4, 0.65, 0.66], [0.25, 0.07, 0.38, 0.26], [0.00625, 0.015625, 0.00625, 0.015625]],
    },
    {"file": "M1P1xla8rg0_000000", "class": "playing tambourine", "bbox": [[0.26875, 1.0, 0.753125, 1.0]]},
    {"file": "XcyHfR180hA_000008", "class": "playing congas", "bbox": [[0.1, 0.2, 1.3, 0.4], [0.4, 0.7, 0.7, -2.9e16]]},
]  # fmt: skip
"""Entries as in vggss.json, with the kinds of damage that it has."""


def write_boxes(folder, entries=ENTRIES):
    (folder / "vggss.json").write_text(json.dumps(entries))
    return folder


def test_boxes_are_cut_at_the_edges_and_empty_ones_left_out(tmp_path):
    make(write_boxes(tmp_path), "zpWuikVorYg_32000_42000.mp4")
    listing = list_items(str(tmp_path), VGGSoundSource())
    (elk,), (taps, tambourine, congas) = listing.items, listing.missing
    assert elk.video == "zpWuikVorYg_32000_42000.mp4"
    assert (elk.boxes, elk.sources, elk.class_name) == (((0.403125, 0.253125, 0.6, 0.75),), 1, "elk bugling")
    assert (len(taps.boxes), taps.sources) == (2, 2)
    assert (tambourine.boxes, tambourine.sources) == ((), None)
    assert (congas.boxes, congas.sources) == (((0.1, 0.2, 1.0, 0.4),), 1)
    assert {item.pair_origin for item in (elk, taps)} == {"annotated"}
    assert [item.key for item in list_items(str(tmp_path), VGGSoundSource(), sources="multi").missing] == [taps.key]


def many(count=300):
    """Clips, every tenth of which is of the same video as the one before."""
    video = [f"video{i - (i % 10 == 9):06d}" for i in range(count)]
    return [{"file": f"{name}_{i:06d}", "class": "x", "bbox": [[0, 0, 1, 1]]} for i, name in enumerate(video)]


def parts(folder, **options) -> dict[str, set[str]]:
    listing = list_items(str(folder), VGGSoundSource(**options))
    found: dict[str, set[str]] = {"train": set(), "test": set()}
    for item in (*listing.items, *listing.missing):
        found[item.split].add(item.key)
    return found


@pytest.mark.parametrize("test_items", [0, 1, 50, 299, 300])
def test_the_split_has_as_many_test_clips_as_asked_for_and_cuts_no_video(tmp_path, test_items):
    found = parts(write_boxes(tmp_path, many()), test_items=test_items)
    assert len(found["test"]) == test_items
    assert len(found["train"]) == 300 - test_items
    assert not {key[:11] for key in found["test"]} & {key[:11] for key in found["train"]}


def test_the_split_depends_on_the_seed_alone_not_on_order_or_dead_links(tmp_path):
    entries = many()
    first = parts(write_boxes(tmp_path, entries), test_items=50)
    assert parts(write_boxes(tmp_path, entries[::-1]), test_items=50) == first
    make(tmp_path, *(f"{entry['file']}.mp4" for entry in entries[::3]))
    assert parts(tmp_path, test_items=50) == first
    assert parts(tmp_path, test_items=50, seed=1) != first


def test_the_test_clips_are_a_fair_sample(tmp_path):
    numbers = [int(key[12:]) for key in parts(write_boxes(tmp_path, many()), test_items=100)["test"]]
    assert np.mean(numbers) == pytest.approx(150, abs=30)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "not a list of clips with file, class and bbox"),
        ([7], "entry 1: not a clip with file, class and bbox: 7"),
        ([{"file": "zpWuikVorYg_000032", "bbox": []}], "entry 1: not a clip"),
        ([{"file": "zpWuikVorYg", "class": "x", "bbox": []}], "entry 1: file 'zpWuikVorYg' is no name of a clip"),
        ([ENTRIES[0], {**ENTRIES[0], "bbox": [[0, 0, 1]]}], "entry 2: bbox is no list of boxes of four numbers"),
        ([{**ENTRIES[0], "bbox": "x"}], "entry 1: bbox is no list of boxes of four numbers"),
        ([{**ENTRIES[0], "bbox": None}], "entry 1: bbox"),
        ([{**ENTRIES[0], "bbox": [[0, 0, float("nan"), 1]]}], "entry 1: bbox holds numbers that are not finite"),
        ([ENTRIES[0], {**ENTRIES[0], "class": "x"}], "entry 2: the same key as .*entry 1"),
        ([], "lists nothing"),
    ],
)
def test_wrong_boxes(tmp_path, entries, message):
    with pytest.raises(InputError, match=message):
        list_items(str(write_boxes(tmp_path, entries)), VGGSoundSource())


def test_wrong_numbers():
    with pytest.raises(InputError, match="test_items and seed must be at least 0"):
        VGGSoundSource(test_items=-1)
