"""Tells which media files there are, from listings of folders: a question for each file is slow on shared disks."""

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lightning_ss2a.builders.csv_rows import NO_TEXT
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import files_below
from lightning_ss2a.perception.media.containers import VIDEO_SUFFIXES
from lightning_ss2a.perception.media.files import IMAGE_SUFFIXES, SOUND_SUFFIXES

MediaKind = Literal["picture", "video", "sound"]
SUFFIXES: dict[MediaKind, tuple[str, ...]] = {
    "picture": IMAGE_SUFFIXES,
    "video": VIDEO_SUFFIXES,
    "sound": SOUND_SUFFIXES,
}
"""By which a folder's media are found; what they are, their content says later."""

_KIND_OF: dict[str, MediaKind] = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}


def media_in(folder: Path, kind: MediaKind) -> Iterator[PurePosixPath]:
    """Lists the media of a kind anywhere below a folder, in order, by paths relative to it.

    Hidden files and folders are not looked at; links to folders are followed.

    Raises:
        InputError: there is no such folder, one below it cannot be looked into, or a name is not readable text.
    """
    for found, path in _walk(folder):
        if found == kind:
            if NO_TEXT.search(path):
                raise InputError(f"{str(folder / path)!r}: its name is not readable text (UTF-8); rename it")
            yield PurePosixPath(path)


class StemIndex:
    """Finds media below a folder by their names without suffix.

    Where several files of a kind have the same one, the first in the order of :func:`media_in` counts.

    Args:
        root: the folder.

    Raises:
        InputError: there is no such folder, or one below it cannot be looked into.
    """

    def __init__(self, root: Path) -> None:
        self._paths: dict[MediaKind, dict[str, str]] = {kind: {} for kind in SUFFIXES}
        for kind, path in _walk(root):
            self._paths[kind].setdefault(os.path.splitext(os.path.basename(path))[0], path)

    def find(self, kind: MediaKind, *stems: str) -> str | None:
        """Gives the path of the first of these that there is; None: none is there."""
        paths = self._paths[kind]
        return next((paths[stem] for stem in stems if stem in paths), None)


class FilesThere:
    """Tells whether files are there; each folder is listed once.

    Args:
        root: folder that relative paths start from.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, set[str]] = {}

    def __contains__(self, reference: str) -> bool:
        outer, inside, _ = reference.partition("!")  # in a resource file, see perception.media.files.read_media
        folder, _, name = (outer if inside and outer.endswith(".rcc") else reference).rpartition("/")
        if folder not in self._names:
            self._names[folder] = _files_in(self._root / (folder or ("/" if reference.startswith("/") else "")))
        return name in self._names[folder]


def list_file(source: Path, name: str) -> Path:
    """Tells where a list is: the source itself, or the file of that name in it, if it is a folder."""
    return source / name if source.is_dir() else source


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: no such file, or no JSON in UTF-8.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from error


def _walk(folder: Path) -> Iterator[tuple[MediaKind, str]]:
    """Lists (kind, path relative to the folder) of all media below it."""
    for path in files_below(folder):
        kind = _KIND_OF.get(os.path.splitext(path)[1].lower())
        if kind is not None:
            yield kind, path


def _files_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return set()
