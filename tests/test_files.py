"""Files that are whole or not there, whatever happens while they are written."""

import os

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import FolderLock, WholeFile, whole_folder, write_whole


def test_a_file_appears_whole_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "notes.txt"
    assert write_whole(path, "Käse") == path
    with WholeFile(path) as stream:
        stream.write(b"half")
        assert path.read_text() == "Käse"
        stream.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = write_whole(tmp_path / "notes.txt", b"old")

    def write_half() -> None:
        with WholeFile(path) as stream:
            stream.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_a_file_that_cannot_be_renamed_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: steps.append("fsync") or fsync(number))
    monkeypatch.setattr(os, "replace", lambda one, other: steps.append("rename") or rename(one, other))
    for durable in (False, True):
        with WholeFile(tmp_path / "x", durable) as stream:
            stream.write(b"x")
    assert steps == ["rename", "fsync", "rename"]


def test_abandoning_after_the_end_does_no_harm(tmp_path):
    file = WholeFile(tmp_path / "x")
    file.stream.write(b"x")
    file.commit()
    file.abandon()
    assert (tmp_path / "x").read_bytes() == b"x"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fill_half() -> None:
        with whole_folder(tmp_path / "a" / "b") as folder:
            (folder / "one").write_bytes(b"1")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fill_half()
    assert list((tmp_path / "a").iterdir()) == []
    with whole_folder(tmp_path / "a" / "b") as folder:
        (folder / "one").write_bytes(b"1")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b" / "one").read_bytes() == b"1"


def test_one_holder_of_a_folder_at_a_time(tmp_path):
    lock = FolderLock(tmp_path)
    with pytest.raises(InputError, match="another build writes there; wait for it"):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    FolderLock(tmp_path).release()
