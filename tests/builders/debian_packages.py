"""Makes real Debian packages for tests."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

NAME, VERSION = "tiny-sounds", "1.0-1"


def make_package(folder: Path, files: dict[str, bytes]) -> Path:
    """A real .deb, made with dpkg-deb."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg")
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {NAME}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: me <me@example.org>\nDescription: tiny\n"
    )
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    package = folder / f"{NAME}_{VERSION}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", str(tree), str(package)], check=True, capture_output=True
    )
    return package


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
