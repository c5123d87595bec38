import logging
from pathlib import Path

import pytest

from lightning_ss2a.builders.listing import Item, ItemReader, list_items
from lightning_ss2a.errors import InputError


class Given(ItemReader):
    """Reads nothing: the items are given."""

    def __init__(self, *items: Item) -> None:
        self.items = items

    def read(self, source, root):
        yield from self.items

    def key_of(self, name):
        return name.lower()


def item(key: str, **options) -> Item:
    return Item(f"list {key}", key=key, name=key, class_name="c", **({"video": f"{key}.mp4"} | options))


def keys(items) -> list[str]:
    return [item.key for item in items]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.mp4", "b.mp4", "sub/c.mp4", "sub/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    return tmp_path


def test_items_whose_files_are_missing_are_listed_apart_in_order(folder):
    reader = Given(
        item("z", video="none.mp4"), item("a"), item("c", video="sub/c.mp4", sound="sub/c.wav"),
        item("d", video="sub/c.mp4", sound="sub/d.wav"), item("folder"), item("e", video="none/e.mp4"),
        item("t", video=None, text="a dog", sound="sub/c.wav"), item("abs", video=str(folder / "b.mp4")),
        item("gone", video=str(folder / "no" / "b.mp4")), item("up", video="sub/../a.mp4"),
    )  # fmt: skip
    found = list_items(str(folder), reader)
    assert keys(found.items) == ["a", "c", "t", "abs", "up"]
    assert keys(found.missing) == ["z", "d", "folder", "e", "gone"]
    assert [reason for _, reason in found.problems] == [
        "missing: none.mp4",
        "missing: sub/d.wav",  # not the video beside it, which is there
        "missing: folder.mp4",
        "missing: none/e.mp4",
        f"missing: {folder}/no/b.mp4",
    ]


def test_files_inside_a_resource_file_are_there_if_it_is(folder):
    (folder / "x.rcc").write_bytes(b"")
    reader = Given(item("a", video=None, picture="x.rcc!zoo/a.svg"), item("b", video=None, picture="y.rcc!zoo/a.svg"))
    found = list_items(str(folder), reader)
    assert (keys(found.items), keys(found.missing)) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("source", "root"), [("list.csv", None), ("list.csv", "."), ("other/list.csv", "."), (".", None)]
)
def test_paths_start_from_the_list_or_from_the_named_folder(folder, source, root):
    (folder / source).parent.mkdir(exist_ok=True)
    if source != ".":
        (folder / source).write_text("x")
    found = list_items(str(folder / source), Given(item("a")), media_root=root and str(folder / root))
    assert keys(found.items) == ["a"]


def test_what_is_listed_several_times_over_comes_once(folder):
    again = Item("list again", **{name: value for name, value in vars(item("a")).items() if name != "place"})
    found = list_items(str(folder), Given(item("a"), item("b"), again))
    assert keys(found.items) == ["a", "b"]
    assert found.repeated == ("list again",)
    assert found.items[0].place == "list a"


def test_one_key_for_two_things_is_an_error(folder):
    with pytest.raises(InputError, match=r"^list a: the same key as list a, 'a', with other content; remove one, or"):
        list_items(str(folder), Given(item("a"), item("a", split="test")))


def test_exclusion_by_key_by_other_names_and_by_group(folder):
    (folder / "out.txt").write_text("\ufeff# broken\n\nA\n  g1 \nunknown\r\n", encoding="utf-8")
    reader = Given(item("a"), item("b", group="g1"), item("c", group="g2"), item("d", video="none.mp4", group="g1"))
    found = list_items(str(folder), reader, exclude=str(folder / "out.txt"))
    assert found.excluded == ("a", "b", "d")
    assert (keys(found.items), keys(found.missing)) == ([], ["c"])


def test_an_exclusion_list_that_names_nothing_is_warned_of(folder, caplog):
    (folder / "out.txt").write_text("zzz\n")
    with caplog.at_level(logging.WARNING):
        assert keys(list_items(str(folder), Given(item("a")), exclude=str(folder / "out.txt")).items) == ["a"]
    assert "names no item of" in caplog.text


def test_an_exclusion_list_that_names_other_splits_is_the_right_list(folder, caplog):
    (folder / "out.txt").write_text("b\n")
    reader = Given(item("a", split="train"), item("b", split="test"))
    with caplog.at_level(logging.WARNING):
        found = list_items(str(folder), reader, exclude=str(folder / "out.txt"), splits=["train"])
    assert (keys(found.items), found.excluded, caplog.text) == (["a"], (), "")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_exclusion_list_that_cannot_be_read(folder, content):
    if content:
        (folder / "out.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"out\.txt: cannot be read as a list of names"):
        list_items(str(folder), Given(item("a")), exclude=str(folder / "out.txt"))


def test_splits_and_numbers_of_sources(folder):
    reader = Given(
        item("a", split="train", sources=1), item("b", split="test", sources=2),
        item("c", video="sub/c.mp4", split="test", sources=1), item("d", video="a.mp4", sources=3),
    )  # fmt: skip
    chosen = {("test",): ["b", "c"], ("train", "test"): ["a", "b", "c"], None: ["a", "b", "c", "d"]}
    for splits, expected in chosen.items():
        assert keys(list_items(str(folder), reader, splits=splits).items) == expected
    assert keys(list_items(str(folder), reader, sources="single").items) == ["a", "c"]
    assert keys(list_items(str(folder), reader, sources="multi").items) == ["b", "d"]
    assert keys(list_items(str(folder), reader, sources="multi", splits=["test"]).items) == ["b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": ["tset"]}, r"splits: .* has no split 'tset'; did you mean test\?"),
        ({"splits": ["train"], "sources": "multi"}, r"sources: .* lists no item with multi sources"),
    ],
)
def test_choices_that_leave_nothing(folder, options, message):
    reader = Given(item("a", split="train", sources=1), item("b", split="test", sources=2))
    with pytest.raises(InputError, match=message):
        list_items(str(folder), reader, **options)


def test_sources_that_nobody_counted(folder):
    with pytest.raises(InputError, match="does not say how many sources an item has; take all"):
        list_items(str(folder), Given(item("a")), sources="single")


def test_no_list_and_an_empty_one(folder):
    with pytest.raises(InputError, match="no such file or folder"):
        list_items(str(folder / "none"), Given(item("a")))
    with pytest.raises(InputError, match="lists nothing"):
        list_items(str(folder), Given())
