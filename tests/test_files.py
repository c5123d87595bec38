"""Files that are whole or not there, whatever happens while they are written."""

import os

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import (
    FolderLock,
    WholeFile,
    files_below,
    is_local,
    local_path,
    make_folder,
    to_path,
    whole_folder,
    write_all_whole,
    write_whole,
)
from tests.limits import largest_file


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


@pytest.mark.parametrize("size", [10_000, 1_000_000])  # seen when the buffer is flushed at the end, and while writing
def test_a_file_that_grows_too_large_is_named_and_the_old_one_stays(tmp_path, size):
    path = write_whole(tmp_path / "notes.txt", b"old")
    with largest_file(4096), pytest.raises(OSError, match=r"File too large: '.*notes\.txt'"):
        write_whole(path, bytes(size))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_files_that_belong_together_are_replaced_all_or_none(tmp_path, size):
    paths = [tmp_path / "scores.json", tmp_path / "scores.csv"]
    assert write_all_whole({path: f"old {path.name}" for path in paths}) == paths
    with largest_file(4096), pytest.raises(OSError, match=r"File too large: '.*scores\.csv'"):
        write_all_whole({paths[0]: "new", paths[1]: "x" * size})
    assert [path.read_text() for path in paths] == ["old scores.json", "old scores.csv"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    write_all_whole({paths[0]: "new", paths[1]: "new, too"})
    assert [path.read_text() for path in paths] == ["new", "new, too"]


def test_a_file_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(NotADirectoryError, match=r"taken/notes\.txt'$"):
        write_whole(tmp_path / "taken" / "notes.txt", b"x")


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


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("a/b", "a/b"),
        ("file:///a/b c", "/a/b c"),
        ("file://a", "a"),
        ("file:/a", "/a"),
        ("local:///a", "/a"),
        ("s3://a/b", None),
        ("memory://a", None),
        ("pipe:cat a", None),
    ],
)
def test_paths_and_urls_of_files_stand_for_the_same_path(url: str, path: str | None):
    assert is_local(url) == (path is not None)
    if path is not None:
        assert (local_path(url), str(to_path(url))) == (path, path)
        return
    assert local_path(url) == url
    with pytest.raises(InputError, match="a URL, and here only a path of this machine will do"):
        to_path(url)


def test_what_looks_like_a_url_and_is_there_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("file:x", "memory:x"):
        write_whole(name, b"x")
        assert is_local(name)
        assert to_path(name).read_bytes() == b"x"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    make_folder(tmp_path / "a" / "b", "the report")
    make_folder(tmp_path / "a" / "b", "the report")
    (tmp_path / "file").write_text("")
    message = r"file/c: cannot be the folder of the report \(Not a directory\); name another$"
    with pytest.raises(InputError, match=message):
        make_folder(tmp_path / "file" / "c", "the report")


def test_a_folder_that_cannot_be_looked_into_is_named_and_not_left_out(tmp_path, monkeypatch):
    for name in ("a/1.wav", "shut/2.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    assert list(files_below(tmp_path)) == ["a/1.wav", "shut/2.wav"]
    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(InputError, match=r"shut: cannot be looked into \(Permission denied\)"):
        list(files_below(tmp_path))
