"""A data set is built beside the one that it replaces, and no kill leaves half of either."""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.data import ShardError, ShardWriter
from lightning_ss2a.data.format.staging import JOURNAL, STAGING
from lightning_ss2a.data.tools.validate import validate_dataset
from tests.data.shard_examples import CLASSES, FIELDS, make_dataset, make_label_head, random_columns

ROWS = 14
SIZES = {"block_rows": 2, "shard_rows": 4}
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def old_dataset(folder: Path) -> Path:
    """With shards, a label head and a file of its owner, of which the new one has fewer."""
    make_dataset(folder, splits={"train": 40, "test": 5}, label_head=make_label_head())
    (folder / "NOTES").write_text("mine")
    return folder


def build(folder: Path, stop_at: int | None = None, rows: int = ROWS, **options) -> None:
    options = {"overwrite": True, "rows_from": "a list", "beside": ["more/*"]} | SIZES | options
    with ShardWriter(folder, "pairs", FIELDS["pairs"], CLASSES, **options) as writer:
        (writer.staging / "more").mkdir(exist_ok=True)
        (writer.staging / "more" / "about.txt").write_text("these rows")
        columns = random_columns("pairs", rows, seed=7)
        for row in range(writer.rows_written("train"), rows):
            if row == stop_at:
                columns["audio"][row] = np.nan
            writer.write("train", {name: value[row : row + 1] for name, value in columns.items()})


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def beside_staging(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in all_bytes(folder).items() if not name.startswith(STAGING)}


def build_until_killed(folder: Path, number: int) -> bool:
    """Builds in a process that dies by SIGKILL before it changes the file system for this time; False if it ended."""
    process = os.fork()
    if not process:
        changes = 0

        def kill(event: str, arguments: tuple) -> None:
            nonlocal changes
            if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
                changes += 1
                if changes == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        try:
            build(folder, rows=6)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def test_a_kill_at_any_moment_leaves_one_of_two_data_sets_whole_or_none_that_can_be_read(tmp_path: Path):
    old = beside_staging(old_dataset(tmp_path / "old"))
    build(tmp_path / "new", rows=6)
    (tmp_path / "new" / "NOTES").write_text("mine")
    new, unreadable, number = all_bytes(tmp_path / "new"), 0, 0
    folder = tmp_path / "killed"
    while True:
        number += 1
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "old", folder)
        if not build_until_killed(folder, number):
            break
        found = beside_staging(folder)
        if "manifest.json" in found:
            assert found in (old, new), number
            build(folder, rows=6)
        else:  # killed while it took its place: the next writer finishes that, whatever it writes itself
            unreadable += 1
            with pytest.raises(ShardError, match="holds a finished data set"):
                build(folder, overwrite=False)
        assert all_bytes(folder) == new, number
    assert number > 25
    assert 0 < unreadable < number / 2


@pytest.mark.parametrize("rows_from", ["a list", None])
def test_a_build_that_fails_leaves_the_old_data_set_and_goes_on_where_it_can(tmp_path: Path, rows_from: str | None):
    build(tmp_path / "whole")
    old = beside_staging(old_dataset(tmp_path / "out"))
    with pytest.raises(ShardError, match="row 9, field audio is NaN"):
        build(tmp_path / "out", stop_at=9, rows_from=rows_from)
    assert beside_staging(tmp_path / "out") == old
    assert validate_dataset(tmp_path / "out") == []
    left = sorted(file.name for file in (tmp_path / "out" / STAGING).glob("*.tar"))
    assert left == (["train-000000.tar", "train-000001.tar"] if rows_from else [])
    build(tmp_path / "out", rows_from=rows_from)
    assert beside_staging(tmp_path / "out") == all_bytes(tmp_path / "whole") | {"NOTES": b"mine"}
    assert not (tmp_path / "out" / STAGING).exists()


def stopped(folder: Path) -> Path:
    with pytest.raises(ShardError, match="NaN"):
        build(folder, stop_at=9)
    return folder / STAGING / JOURNAL


def test_the_journal_grows_and_a_line_that_was_not_written_whole_is_ignored(tmp_path: Path):
    build(tmp_path / "whole")
    journal = stopped(tmp_path / "out")
    before = journal.read_bytes()
    assert before.count(b"\n") == 3  # what is built, and two shards
    journal.write_bytes(before + before.splitlines()[2][:40])
    with pytest.raises(ShardError, match="NaN"):
        build(tmp_path / "out", stop_at=13)
    assert journal.read_bytes().startswith(before)
    assert journal.read_bytes().count(b"\n") == 4
    build(tmp_path / "out")
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")


def test_a_damaged_build_does_not_go_on_but_may_be_overwritten(tmp_path: Path):
    def lose_a_line(journal: Path) -> None:
        journal.write_bytes(journal.read_bytes().replace(b'"split"', b"split", 1))

    def lose_a_shard(journal: Path) -> None:
        journal.with_name("train-000001.tar").unlink()

    build(tmp_path / "whole")
    for damage, message in ((lose_a_line, r"\.journal, line 2: not valid JSON"), (lose_a_shard, "missing or changed")):
        damage(stopped(tmp_path / "out"))
        with pytest.raises(ShardError, match=message):
            build(tmp_path / "out", overwrite=False)
        build(tmp_path / "out")
        assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    ['{"format_version": 1, "splits": {"a": [{"file": "a-000000.tar"}]}}', '{"format_version": 2, "file": "a'],
)
def test_an_older_or_damaged_data_set_is_replaced_as_far_as_its_manifest_can_be_read(tmp_path: Path, content: str):
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "a-000000.tar").write_bytes(b"old")
    if not content.endswith("}"):
        with pytest.raises(ShardError, match=r"a-000000\.tar: is of no data set of ours"):
            build(tmp_path)
        (tmp_path / "a-000000.tar").unlink()
    build(tmp_path)
    assert not (tmp_path / "a-000000.tar").exists()
    assert validate_dataset(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["train-000000.tar", "other.tar", "label_head.safetensors", "more/about.txt", "manifest.json"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_are_never_replaced(tmp_path: Path, name: str, overwrite: bool):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ShardError, match=f"{name}: is of no data set of ours and might be replaced; move it"):
        build(tmp_path, overwrite=overwrite, label_head=make_label_head())
    assert all_bytes(tmp_path) == {name: b"mine"}


def test_files_that_come_while_a_data_set_is_built_are_not_replaced_either(tmp_path: Path):
    writer = ShardWriter(tmp_path, "pairs", FIELDS["pairs"], CLASSES)
    writer.write("train", random_columns("pairs", 3))
    (tmp_path / "train-000000.tar").write_bytes(b"mine")
    with pytest.raises(ShardError, match="is of no data set of ours"):
        writer.close()
    writer.abandon()
    assert all_bytes(tmp_path) == {"train-000000.tar": b"mine"}
