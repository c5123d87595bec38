import hashlib
import shutil
import sys
import zipfile

import pytest

from lightning_ss2a.builders import packages
from lightning_ss2a.builders.packages import Package, fetch, unpack, unpack_all
from lightning_ss2a.errors import InputError
from tests.builders.debian_packages import NAME, VERSION, make_package, sha256

CONTENT = hashlib.sha256(b"content").hexdigest()
WHEEL = "tiny_sounds-1.0.0-py3-none-any.whl"


def make_wheel(folder, files):
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return folder / WHEEL


def test_a_package_in_the_folder_is_not_downloaded_again(tmp_path, monkeypatch):
    package = tmp_path / f"{NAME}_{VERSION}_all.deb"
    package.write_bytes(b"content")
    monkeypatch.setattr(packages, "run", lambda *arguments: pytest.fail("downloaded"))
    assert fetch(Package(NAME, VERSION, sha256(package)), tmp_path) == package


def test_a_package_is_downloaded_with_its_version(tmp_path, monkeypatch):
    def download(command, folder):
        assert command == ["apt-get", "download", f"{NAME}={VERSION}"]
        (folder / f"{NAME}_{VERSION}_all.deb").write_bytes(b"content")

    monkeypatch.setattr(packages, "run", download)
    found = fetch(Package(NAME, VERSION, CONTENT), tmp_path / "new" / "debs")
    assert found.read_bytes() == b"content"


def test_another_package_is_refused(tmp_path):
    package = tmp_path / f"{NAME}_{VERSION}_all.deb"
    package.write_bytes(b"other content")
    with pytest.raises(InputError, match=r"_all\.deb: missing, or not the package that the lists .* remove it"):
        fetch(Package(NAME, VERSION, CONTENT), tmp_path)


def test_a_download_that_failed_says_where_else_the_package_is(tmp_path, monkeypatch):
    def fail(command, folder):
        raise InputError("apt-get download: failed (E: Unable to locate package)")

    monkeypatch.setattr(packages, "run", fail)
    with pytest.raises(InputError, match=r"Unable to locate.* or put tiny-sounds_1\.0-1_all\.deb into "):
        fetch(Package(NAME, VERSION, ""), tmp_path)


def test_a_package_is_unpacked_once_and_whole(tmp_path, monkeypatch):
    package = make_package(tmp_path, {"usr/share/tiny/a.txt": b"hello", "usr/share/tiny/b/c.bin": bytes(99)})
    unpack(package, tmp_path / "media" / NAME)
    assert (tmp_path / "media" / NAME / "usr/share/tiny/a.txt").read_bytes() == b"hello"
    assert (tmp_path / "media" / NAME / "usr/share/tiny/b/c.bin").read_bytes() == bytes(99)
    assert [entry.name for entry in (tmp_path / "media").iterdir()] == [NAME]
    monkeypatch.setattr(packages, "run", lambda *arguments: pytest.fail("unpacked again"))
    unpack(package, tmp_path / "media" / NAME)


@pytest.mark.skipif(not shutil.which("dpkg"), reason="needs dpkg")
def test_a_damaged_package_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.deb").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"dpkg -x .*: failed"):
        unpack(tmp_path / "bad.deb", tmp_path / "media" / NAME)
    assert list((tmp_path / "media").iterdir()) == []


def test_programs_that_fail_or_are_missing(tmp_path):
    with pytest.raises(InputError, match=r"^sh -c .*: failed \(last line\)$"):
        packages.run(["sh", "-c", "echo first >&2; echo last line >&2; exit 3"], tmp_path)
    with pytest.raises(InputError, match=r"failed \(no message\)"):
        packages.run(["false"], tmp_path)
    with pytest.raises(InputError, match="no-such-program: not found; the demo is built on Debian or Ubuntu"):
        packages.run(["no-such-program"], tmp_path)


def test_a_wheel_is_downloaded_with_its_version_and_without_what_it_depends_on(tmp_path, monkeypatch):
    def download(command, folder):
        assert command[:3] == [sys.executable, "-m", "pip"]
        assert {"download", "--no-deps", "tiny-sounds==1.0.0"} <= set(command)
        (folder / WHEEL).write_bytes(b"content")

    monkeypatch.setattr(packages, "run", download)
    found = fetch(Package("tiny-sounds", "1.0.0", CONTENT, "python"), tmp_path)
    assert found == tmp_path / WHEEL


def test_packages_of_both_kinds_are_unpacked_from_one_cache(tmp_path):
    (tmp_path / "debs").mkdir()
    (tmp_path / "wheels").mkdir()
    debian = make_package(tmp_path / "debs", {"usr/share/tiny/a.txt": b"hello"})
    wheel = make_wheel(tmp_path / "wheels", {"tiny/sounds/cow.mp3": b"moo"})
    both = (Package(NAME, VERSION, sha256(debian)), Package("tiny-sounds-two", "1.0.0", sha256(wheel), "python"))
    wheel.rename(wheel.with_name("tiny_sounds_two-1.0.0-py3-none-any.whl"))
    media = unpack_all(both, tmp_path)
    assert media == tmp_path / "media"
    assert (media / NAME / "usr/share/tiny/a.txt").read_bytes() == b"hello"
    assert (media / "tiny-sounds-two" / "tiny/sounds/cow.mp3").read_bytes() == b"moo"


def test_a_damaged_wheel_leaves_nothing_behind(tmp_path):
    (tmp_path / WHEEL).write_bytes(b"PK\3\4 hello")
    with pytest.raises(InputError, match=rf"{WHEEL}: cannot be unpacked .* remove it"):
        unpack(tmp_path / WHEEL, tmp_path / "media" / NAME)
    assert list((tmp_path / "media").iterdir()) == []
