"""Qt binary resource files (``.rcc``): a tree of named files, read without Qt."""

import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lightning_ss2a.errors import InputError

MAGIC = b"qres"
COMPRESSED_ZLIB, DIRECTORY, COMPRESSED_ZSTD = 1, 2, 4
NEWEST_VERSION = 3


class QtResources:
    """The files of a ``.rcc`` file.

    The format (qtbase, ``qresource.cpp``): a header with the positions of three tables, all numbers big-endian. The
    tree lists name, flags and either a directory's children or a file's position; names are UTF-16 after a length and
    a hash; data are bytes after their length.

    Args:
        path: the file.

    Raises:
        InputError: missing, damaged, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes = path.read_bytes()
            magic, self._version, self._tree, self._data, self._names = struct.unpack_from(">4s4I", self._bytes)
            if magic != MAGIC or not 1 <= self._version <= NEWEST_VERSION:
                raise InputError(f"{path}: not a Qt resource file of version 1 to {NEWEST_VERSION}")
            self._positions = dict(self._walk(0, "", set()))
        except (OSError, struct.error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a Qt resource file ({error})") from error

    @property
    def names(self) -> list[str]:
        """Paths of all files in it."""
        return sorted(self._positions)

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            InputError: no such file, or its compression is not supported.
        """
        if name not in self._positions:
            raise InputError(f"{self.path}: holds no {name}")
        position, flags = self._positions[name]
        try:
            (length,) = struct.unpack_from(">I", self._bytes, self._data + position)
            start = self._data + position + 4
            content = self._bytes[start : start + length]
            if len(content) != length:
                raise InputError(f"{self.path}: {name} is cut off")
            if flags & COMPRESSED_ZSTD:
                raise InputError(f"{self.path}: {name} is compressed with zstd; unpack the file with Qt's own rcc")
            # Qt puts the length of the unpacked data, four bytes, before the stream.
            return zlib.decompress(content[4:]) if flags & COMPRESSED_ZLIB else content
        except (struct.error, zlib.error) as error:
            raise InputError(f"{self.path}: {name} is damaged ({error})") from error

    def _walk(self, node: int, prefix: str, seen: set[int]) -> Iterator[tuple[str, tuple[int, int]]]:
        """(path, (position of the data, flags)) of each file below a node of the tree."""
        if node in seen:
            raise InputError(f"{self.path}: the tree of a damaged Qt resource file runs in a circle")
        seen.add(node)
        offset = self._tree + node * (14 if self._version == 1 else 22)
        name_position, flags = struct.unpack_from(">IH", self._bytes, offset)
        path = f"{prefix}/{self._name(name_position)}".lstrip("/") if node else ""
        if flags & DIRECTORY:
            count, first = struct.unpack_from(">II", self._bytes, offset + 6)
            for child in range(first, first + count):
                yield from self._walk(child, path, seen)
        else:
            yield path, (struct.unpack_from(">I", self._bytes, offset + 10)[0], flags)

    def _name(self, position: int) -> str:
        (length,) = struct.unpack_from(">H", self._bytes, self._names + position)
        start = self._names + position + 6
        return self._bytes[start : start + 2 * length].decode("utf-16-be")


@lru_cache(maxsize=2)
def open_resources(path: Path) -> QtResources:
    """The resources of a file; the last two opened are kept, since media of one file come one after the other."""
    return QtResources(path)
