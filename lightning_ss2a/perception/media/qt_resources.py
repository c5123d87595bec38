"""Reads Qt binary resource files (``.rcc``), trees of named files, without Qt."""

import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lightning_ss2a.errors import InputError

MAGIC = b"qres"
COMPRESSED_ZLIB, DIRECTORY, COMPRESSED_ZSTD = 1, 2, 4
NEWEST_VERSION = 3
LARGEST_FILE = 1 << 28
"""Bytes of one file once unpacked."""
LONGEST_PATH = 4096
"""Characters of a path; a longer one is damage."""


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
            files = list(self._walk())
        except (OSError, struct.error, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be read as a Qt resource file ({reason})") from error
        self._positions = dict(files)
        if len(self._positions) != len(files):
            raise InputError(f"{path}: the Qt resource file is damaged (two files have the same path)")

    @property
    def names(self) -> list[str]:
        """Paths of all files in it."""
        return sorted(self._positions)

    def read(self, name: str) -> bytes:
        """Reads the content of one file.

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
            return self._unpack(content, name) if flags & COMPRESSED_ZLIB else content
        except (struct.error, zlib.error) as error:
            raise InputError(f"{self.path}: {name} is damaged ({error})") from error

    def _unpack(self, content: bytes, name: str) -> bytes:
        (length,) = struct.unpack_from(">I", content)  # Qt puts the length of the unpacked data before the stream
        if length > LARGEST_FILE:
            raise InputError(f"{self.path}: {name} is larger than {LARGEST_FILE} bytes")
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(content[4:], length + 1)  # a byte more, so that too much is seen
        if len(unpacked) != length or not unpacker.eof:
            raise InputError(f"{self.path}: {name} is damaged (it has another length than it says)")
        return unpacked

    def _walk(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Lists the files in the tree, as (path, (position of the data, flags))."""
        seen, ahead = {0}, [(0, "")]
        while ahead:
            node, folder = ahead.pop()
            offset = self._tree + node * (14 if self._version == 1 else 22)
            name_position, flags = struct.unpack_from(">IH", self._bytes, offset)
            path = f"{folder}/{self._name(name_position)}".lstrip("/") if node else ""
            if len(path) > LONGEST_PATH:
                raise InputError(f"{self.path}: the Qt resource file is damaged (a path is too long)")
            if not flags & DIRECTORY and node:
                yield path, (struct.unpack_from(">I", self._bytes, offset + 10)[0], flags)
                continue
            count, first = struct.unpack_from(">II", self._bytes, offset + 6)
            if count > len(self._bytes) or not seen.isdisjoint(children := range(first, first + count)):
                raise InputError(f"{self.path}: the Qt resource file is damaged (its tree is none)")
            seen.update(children)
            ahead += [(child, path) for child in children]

    def _name(self, position: int) -> str:
        (length,) = struct.unpack_from(">H", self._bytes, self._names + position)
        start = self._names + position + 6
        name = self._bytes[start : start + 2 * length]
        if len(name) != 2 * length:
            raise InputError(f"{self.path}: the Qt resource file is cut off")
        return name.decode("utf-16-be")


@lru_cache(maxsize=2)
def open_resources(path: Path) -> QtResources:
    """Opens a resource file; the last two are cached, since media of one file come one after the other."""
    return QtResources(path)
