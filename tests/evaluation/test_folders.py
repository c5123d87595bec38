"""Which items there are, and what is missing on either side."""

from pathlib import Path

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.folders import Item, Problem, list_items, locate, method_of, open_folders


def touch(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return str(folder)


def test_items_are_those_of_the_reference_by_stem(tmp_path: Path):
    a = touch(tmp_path / "a", "dog.wav", "sub/cat.ogg", "more.wav", "notes.txt")
    reference = touch(tmp_path / "r", "dog.flac", "sub/cat.mp4", "hen.v2.wav")
    folders = open_folders([a], reference)
    items, problems = list_items(folders)
    assert [item.name for item in items] == ["dog", "hen.v2", "sub/cat"]
    assert problems == [Problem("a", "more", f"is no item of {reference}")]
    assert locate(items[0], folders.methods["a"], "a") == [tmp_path / "a" / "dog.wav"]
    assert locate(items[1], folders.methods["a"], "a") is None
    assert folders.reference is not None
    assert locate(items[1], folders.reference, "reference") == [tmp_path / "r" / "hen.v2.wav"]


def test_without_a_reference_items_are_the_pictures_or_what_any_method_has(tmp_path: Path):
    a, b = touch(tmp_path / "a", "1.wav", "2.wav"), touch(tmp_path / "b", "2.wav", "3.wav")
    images = touch(tmp_path / "i", "1.jpg", "4.png")
    names = [item.name for item in list_items(open_folders([a, b]))[0]]
    assert names == ["1", "2", "3"]
    items, problems = list_items(open_folders([a, b], images=images))
    assert [item.name for item in items] == ["1", "4"]
    assert [(problem.folder, problem.item) for problem in problems] == [("a", "2"), ("b", "2"), ("b", "3")]


def test_pictures_and_videos_of_no_reference_are_told(tmp_path: Path):
    a, reference = touch(tmp_path / "a", "1.wav"), touch(tmp_path / "r", "1.wav")
    images, videos = touch(tmp_path / "i", "1.jpg", "2.jpg"), touch(tmp_path / "v", "3.mp4")
    items, problems = list_items(open_folders([a], reference, images, videos))
    assert [item.name for item in items] == ["1"]
    assert problems == [
        Problem(side, item, f"is no item of {reference}") for side, item in (("images", "2"), ("videos", "3"))
    ]


def test_a_csv_file_pairs_by_its_columns(tmp_path: Path):
    a, reference = touch(tmp_path / "a", "x.wav", "y.wav", "z.wav"), touch(tmp_path / "r", "dog.wav", "cat.wav")
    images = touch(tmp_path / "i", "p.jpg", "q.jpg")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("name,reference,image,class,group,sources,text\nx,dog.wav,p.jpg; q,dog,g1,2,a dog\ny,cat,p,,,,\n")
    folders = open_folders([a], reference, images)
    items, problems = list_items(folders, str(pairs))
    assert problems == []
    assert items == [
        Item(
            "x",
            {"reference": ("dog.wav",), "image": ("p.jpg", "q")},
            "a dog",
            "g1",
            {"class": "dog", "sources": "2"},
        ),
        Item("y", {"reference": ("cat",), "image": ("p",)}),
    ]
    assert folders.images is not None
    assert locate(items[0], folders.images, "image") == [tmp_path / "i" / "p.jpg", tmp_path / "i" / "q.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nombre\nx\n", "lacks the column name|name"),
        ("name\n", "lists no items"),
        ("name\nx\nx\n", "row 3: x is there twice"),
        ("name,sources\nx,two\n", "row 2: sources is 'two', needs a whole number"),
        ("name,image\nx,x.jpg\n", "column image; say with --images"),
        ("name,source\nx,2\n", "has a column 'source'; did you mean sources"),
    ],
)
def test_a_wrong_csv_file_is_refused(tmp_path: Path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    folders = open_folders([touch(tmp_path / "a", "x.wav")])
    with pytest.raises(InputError, match=message):
        list_items(folders, str(tmp_path / "pairs.csv"))


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        (["none"], "none: no such folder"),
        (["empty"], "empty: .* holds no sound or video"),
        (["twice"], "have one name; remove one"),
        (["a", "b/a"], "generated: the name a is taken"),
        (["reference=a"], "the name reference is taken"),
        ([], "name at least one folder"),
    ],
)
def test_wrong_folders_are_refused(tmp_path: Path, monkeypatch, generated, message):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "a", "1.wav"), touch(tmp_path / "b" / "a", "1.wav"), touch(tmp_path / "twice", "1.wav", "1.ogg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        open_folders(generated)


def test_a_folder_may_hold_an_equals_sign(tmp_path: Path):
    folder = touch(tmp_path / "cfg=3", "1.wav")
    assert method_of(folder) == ("cfg=3", folder)
    assert method_of(f"NAME={folder}") == ("NAME", folder)
