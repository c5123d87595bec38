import json
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.builders.engine.packing import pack
from lightning_ss2a.builders.engine.parts import DESCRIPTION, BuildFolder, Part, PerceivedItem, Region
from lightning_ss2a.errors import InputError

DESCRIBED = {"kind": "scenes", "batch_size": "2"}


def example(number: int = 3) -> Part:
    generator = np.random.default_rng(number)
    items = [
        PerceivedItem(
            2 * number + i,
            ("ab" * 32, "cd" * 32),
            {
                "sources": generator.normal(size=(i + 1, 5)).astype(np.float32),
                "audio": generator.normal(size=(1, 4)).astype(np.float32),
            },
            (Region("dog", 0.5, (0.0, 0.25, 0.5, 1.0)),) * (i + 1),
        )
        for i in range(2)
    ]
    return Part(number, tuple(items), {1: "a.png: “what”\never"})


def same(one: Part, other: Part) -> bool:
    words = [
        (part.number, part.rejected, [(i.number, i.content, i.regions) for i in part.items]) for part in (one, other)
    ]
    arrays = [[(name, x.tolist()) for item in part.items for name, x in item.fields.items()] for part in (one, other)]
    return words[0] == words[1] and arrays[0] == arrays[1]


def test_a_part_is_read_as_it_was_written(tmp_path: Path):
    folder = BuildFolder(tmp_path, DESCRIBED)
    parts = [example(3), Part(4, (), {8: "broken"}), Part(5, ())]
    with folder.for_writing(overwrite=False):
        for part in parts:
            folder.write(part)
    assert folder.finished() == {3, 4, 5}
    assert all(same(one, other) for one, other in zip(folder.read([3, 4, 5]), parts, strict=True))


@pytest.mark.parametrize("damage", ["missing", "cut", "text"])
def test_a_part_that_is_not_whole_is_named(tmp_path: Path, damage: str):
    folder = BuildFolder(tmp_path, DESCRIBED)
    with folder.for_writing(overwrite=False):
        folder.write(example())
    (file,) = folder.folder.glob("*.npz")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:200] if damage == "cut" else b"hello")
    with pytest.raises(InputError, match=f"{file.name}: missing or damaged .*; remove it and build again"):
        next(folder.read([3]))


def test_an_unfinished_build_goes_on_only_with_the_same_options(tmp_path: Path):
    with BuildFolder(tmp_path, DESCRIBED).for_writing(overwrite=False):
        BuildFolder(tmp_path, DESCRIBED).write(example())
    other = BuildFolder(tmp_path, DESCRIBED | {"batch_size": "3"})
    with pytest.raises(InputError, match=r"unfinished build with another batch_size \(2, now 3\); go on with the same"):
        other.check()
    with pytest.raises(InputError, match="another batch_size"), other.for_writing(overwrite=False):
        pass
    with BuildFolder(tmp_path, DESCRIBED).for_writing(overwrite=True):
        assert BuildFolder(tmp_path, DESCRIBED).finished() == {3}
    with other.for_writing(overwrite=True):
        assert other.finished() == set()
    assert json.loads((other.folder / DESCRIPTION).read_text()) == other.description


def test_parts_of_another_build_are_not_taken_for_its_own(tmp_path: Path):
    """As a process writes them that a kill has left behind."""
    folder, other = (BuildFolder(tmp_path, DESCRIBED | {"seed": seed}) for seed in "01")
    with folder.for_writing(overwrite=False):
        other.write(example())
        assert folder.finished() == set()


def test_two_builds_in_one_folder_do_not_go_on_together(tmp_path: Path):
    folder = BuildFolder(tmp_path, DESCRIBED)
    with (
        folder.for_writing(overwrite=False),
        pytest.raises(InputError, match="another build writes there"),
        BuildFolder(tmp_path, DESCRIBED).for_writing(overwrite=True),
    ):
        pass


def test_what_was_being_written_when_a_build_was_killed_is_removed(tmp_path: Path):
    folder = BuildFolder(tmp_path, DESCRIBED)
    with folder.for_writing(overwrite=False):
        (folder.folder / ".0000001-ab.npz.17.tmp").write_bytes(b"half")
    with folder.for_writing(overwrite=False):
        assert [file.name for file in folder.folder.iterdir()] == [DESCRIPTION]


def test_packing_keeps_objects_and_arrays():
    arrays = [
        np.arange(7, dtype=np.uint8),
        np.ones((3, 5), np.float32),
        np.zeros((0, 3)),
        np.arange(12).reshape(3, 4).T,
    ]
    unpacked = pack({"words": "some", "arrays": arrays, "again": arrays[1]}).unpack()
    assert unpacked["words"] == "some"
    for one, other in zip(unpacked["arrays"], arrays, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert unpacked["again"] is unpacked["arrays"][1]
