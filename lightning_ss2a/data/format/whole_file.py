"""Reads files from their start to their end, unpacked: what can be read once only, such as a command's output."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import fsspec
import webdataset
from webdataset.gopen import Pipe

from lightning_ss2a.data.format.storage import check_status, is_web, open_local, unreadable
from lightning_ss2a.errors import ShardError
from lightning_ss2a.files import is_local

MOST_EXPANSION = 200
"""Times as large as its gzip, bzip2 or xz that a file may be."""
UNPACKED_FREELY = 64 << 20
"""Bytes to which any file may unpack."""

_AT_ONCE = 4 << 20
_XZ_MEMORY = 1 << 30


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


def open_whole(url: str | os.PathLike) -> io.BufferedReader:
    """Opens a file, perhaps compressed with gzip, bzip2 or xz.

    Args:
        url: a local path, ``pipe:COMMAND``, or any URL of fsspec.

    Returns:
        Its bytes, unpacked. Reading them raises :class:`ShardError` where they are damaged or cut off, where they are
        more than the bounds above allow (a bomb), or where the command failed.

    Raises:
        ShardError: it cannot be opened.
    """
    source = os.fspath(url)
    try:
        stored = _Stored(source, _open_stream(source))
    except Exception as error:  # file systems of fsspec raise what they like
        raise unreadable(source, error) from error
    packed: io.BufferedReader = io.BufferedReader(stored, _AT_ONCE)
    start = packed.peek(max(map(len, _UNPACKERS)))
    for mark, unpack in _UNPACKERS.items():
        if start.startswith(mark):
            return io.BufferedReader(_Unpacked(stored, unpack(packed)), _AT_ONCE)
    return packed


def _open_stream(url: str) -> Any:
    if is_local(url):
        return open_local(url, None)[0]
    if url.startswith("pipe:"):
        return webdataset.gopen(url, "rb")
    if is_web(url):
        from lightning_ss2a.data.format.web import WebStream  # imports aiohttp, which local files do without

        return WebStream(url)
    return fsspec.open(url, "rb").open()


class _Stored(io.RawIOBase):
    """The bytes of a file as they are, counted."""

    def __init__(self, url: str, stream: Any) -> None:
        self.url = url
        self.count = 0
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._read(len(buffer))
        except Exception as error:  # file systems of fsspec raise what they like
            raise unreadable(self.url, error) from error
        self.count += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        if not isinstance(self._stream, Pipe):
            return self._stream.read(size)
        data = self._stream.stream.read(size)
        if not data:
            check_status(self._stream)
        return data

    def close(self) -> None:
        if isinstance(self._stream, Pipe):
            self._stream.ignore_errors = True  # a command that is cut short ends with an error
        self._stream.close()
        super().close()


class _Unpacked(io.RawIOBase):
    """The bytes that a compressed file unpacks to, within bounds."""

    def __init__(self, stored: _Stored, content: _Source) -> None:
        self._stored, self._content = stored, content
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        url = self._stored.url
        try:
            data = self._content.read(len(buffer))
        except Exception as error:  # each unpacker has its own
            raise unreadable(url, error) from error
        self._count += len(data)
        if self._count > UNPACKED_FREELY + MOST_EXPANSION * self._stored.count:
            raise ShardError(
                f"{url}: unpacks to over {MOST_EXPANSION} times its size; unpack it yourself if it is good"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stored.close()
        super().close()


class _StreamsInTurn:
    """Streams of bzip2 or xz, one after the other; Python's own files take a damaged one for the end."""

    def __init__(self, new: Callable[[], Any], packed: _Source) -> None:
        self._new, self._packed = new, packed
        self._unpacker = new()

    def read(self, size: int) -> bytes:
        """Reads at most so many bytes; none at the end."""
        while True:
            packed = b""
            if self._unpacker.eof:
                packed = self._unpacker.unused_data.lstrip(b"\0")  # zeros may fill up an xz
                while not packed:
                    if not (more := self._packed.read(_AT_ONCE)):
                        return b""
                    packed = more.lstrip(b"\0")
                self._unpacker = self._new()
            elif self._unpacker.needs_input and not (packed := self._packed.read(_AT_ONCE)):
                raise EOFError("the compressed file is cut off")
            if data := self._unpacker.decompress(packed, size):
                return data


_UNPACKERS: dict[bytes, Callable[[Any], _Source]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": partial(_StreamsInTurn, bz2.BZ2Decompressor),
    b"\xfd7zXZ": partial(_StreamsInTurn, partial(lzma.LZMADecompressor, memlimit=_XZ_MEMORY)),
}
