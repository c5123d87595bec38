import os
import sys
from pathlib import Path, PurePosixPath

import pytest

from lightning_ss2a.builders.listing.media_files import StemIndex, media_in, read_json
from lightning_ss2a.errors import InputError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_media_of_a_kind_in_order(tmp_path):
    folder = make(
        tmp_path, "b.mp4", "a.MKV", "z/c.webm", "z/y/d.avi", "a/e.mp4", "x.png", "x.wav", ".h/f.mp4", ".g.mp4"
    )
    assert [str(path) for path in media_in(folder, "video")] == ["a.MKV", "b.mp4", "a/e.mp4", "z/c.webm", "z/y/d.avi"]
    assert list(media_in(folder, "picture")) == [PurePosixPath("x.png")]
    assert list(media_in(folder, "sound")) == [PurePosixPath("x.wav")]


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_links_to_folders_are_followed_once(tmp_path):
    folder = make(tmp_path / "a", "x/1.mp4")
    make(tmp_path / "other", "2.mp4")
    (folder / "there").symlink_to(tmp_path / "other")
    (folder / "x" / "back").symlink_to(folder)
    (folder / "broken.mp4").symlink_to(tmp_path / "none")
    assert [str(path) for path in media_in(folder, "video")] == ["broken.mp4", "there/2.mp4", "x/1.mp4"]


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        list(media_in(tmp_path / "none", "video"))
    with pytest.raises(InputError, match="no such folder"):
        StemIndex(tmp_path / "none")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let such a file be made")
def test_a_name_that_is_no_text(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.mp4", "wb"):
        pass
    with pytest.raises(InputError, match="its name is not readable text"):
        list(media_in(tmp_path, "video"))
    assert StemIndex(make(tmp_path, "a.mp4")).find("video", "a") == "a.mp4"  # which no list can mean


def test_the_first_file_of_a_name_counts(tmp_path):
    index = StemIndex(make(tmp_path, "b/x.mp4", "a/x.webm", "x.wav", "c/y.tar.mp4"))
    assert index.find("video", "none", "x") == "a/x.webm"
    assert index.find("sound", "x") == "x.wav"
    assert index.find("picture", "x") is None
    assert index.find("video", "y.tar") == "c/y.tar.mp4"


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xff", b"[" * 100_000])
def test_no_json(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: (not a JSON file|cannot be read)"):
        read_json(tmp_path / "x.json")
