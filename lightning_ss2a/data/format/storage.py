"""Reads local files and URLs the same way: whole files and byte ranges."""

import bz2
import gzip
import lzma
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import fsspec
import webdataset
from webdataset.gopen import Pipe

from lightning_ss2a.errors import ShardError
from lightning_ss2a.files import is_local, local_path

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Names that files of a data set may have: no separators, no ``..``, nothing that a shell reads (``pipe:`` URLs)."""

_SKIP = 1 << 20
_END_OF_TAR = 1024
_LONGEST_MARK = 6
_UNPACKERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class _Source(Protocol):
    """What is read from its start to its end."""

    def read(self, size: int, /) -> bytes: ...


class _Stream(Protocol):
    """What is read of an open file."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def seek(self, offset: int, /) -> int: ...

    def close(self) -> None: ...


def join_url(folder: str | os.PathLike, name: str) -> str:
    """Names a file in a folder; the folder may be a URL, or ``pipe:COMMAND FOLDER``."""
    return f"{os.fspath(folder).rstrip('/')}/{name}"


class RangeReader:
    """Byte ranges of one file, each in one read.

    Streams that cannot seek (``pipe:``) are read through, so ask for ranges in order; going back opens them again.

    Args:
        url: a local path, ``pipe:COMMAND``, or any URL that fsspec opens (``s3://``, ``https://``, ``memory://``).
        folder: local files must lie in this folder, links resolved. None: anywhere.

    Raises:
        ShardError: no such file, not a regular file, or a link out of the folder.
    """

    def __init__(self, url: str | os.PathLike, folder: str | os.PathLike | None = None) -> None:
        self.url = os.fspath(url)
        self._stream: _Stream | None = None
        self._pipe: Pipe | None = None  # kept: it closes its stream when it goes
        self._position = 0
        self._remote: tuple[fsspec.AbstractFileSystem, str] | None = None
        self.size: int | None = None
        """Bytes, where known without reading."""
        try:
            if is_local(self.url):
                self._stream, self.size = _open_local(self.url, folder)
            elif not self.url.startswith("pipe:"):
                self._remote = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # file systems of fsspec raise what they like
            raise _unreadable(self.url, error) from error

    def __enter__(self) -> "RangeReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._pipe is not None:
            self._pipe.proc.wait()
            self._pipe = None

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fills a buffer with the bytes from an offset on; returns how many there were.

        Raises:
            ShardError: the file cannot be read.
        """
        try:
            if self._remote is not None:
                file_system, path = self._remote
                found = file_system.cat_file(path, start=offset, end=offset + len(buffer))
                if len(found) > len(buffer):  # a web server that knows no ranges sends everything
                    found = found[offset : offset + len(buffer)]
                buffer[: len(found)] = found
                return len(found)
            return self._fill(buffer, self._stream_at(offset))
        except Exception as error:  # file systems of fsspec raise what they like
            raise _unreadable(self.url, error) from error

    def read_all(self) -> bytes:
        """Reads the whole file.

        Raises:
            ShardError: the file cannot be read.
        """
        try:
            if self._remote is not None:
                return self._remote[0].cat_file(self._remote[1])
            content = self._stream_at(0).read()
            self._position += len(content)
            if self._pipe is not None and self._pipe.proc.wait():
                raise OSError(f"the command ended with status {self._pipe.proc.returncode}")
            return content
        except Exception as error:  # file systems of fsspec raise what they like
            raise _unreadable(self.url, error) from error

    def _fill(self, buffer: memoryview, stream: _Stream) -> int:
        filled = 0
        while filled < len(buffer):
            found = stream.readinto(buffer[filled:])
            if not found:
                break
            filled += found
        self._position += filled
        return filled

    def _stream_at(self, offset: int) -> _Stream:
        return self._pipe_at(offset) if self.url.startswith("pipe:") else self._local_at(offset)

    def _local_at(self, offset: int) -> _Stream:
        assert self._stream is not None, "closed"
        self._stream.seek(offset)
        return self._stream

    def _pipe_at(self, offset: int) -> _Stream:
        stream = self._stream
        if stream is None or offset < self._position:
            self.close()
            self._pipe = webdataset.gopen(self.url, "rb")
            self._stream = stream = self._pipe.stream
            self._position = 0
        while self._position < offset:
            skipped = len(stream.read(min(_SKIP, offset - self._position)))
            if not skipped:
                break
            self._position += skipped
        return stream


class WholeStream:
    """A tar, perhaps compressed, read from its start to its end; a context manager with ``read``, as tarfile needs it.

    Unpacked here and not by tarfile, which takes a compressed file that is cut off for one that has ended.

    Args:
        url: a local path, ``pipe:COMMAND``, or any URL of fsspec.

    Raises:
        ShardError: it cannot be opened.
    """

    def __init__(self, url: str | os.PathLike) -> None:
        self.url = os.fspath(url)
        self._tail = b""
        try:
            if is_local(self.url):
                self._stream = _open_local(self.url, None)[0]
            elif self.url.startswith("pipe:"):
                self._stream = webdataset.gopen(self.url, "rb")
            else:
                self._stream = fsspec.open(self.url, "rb").open()
            start = self._stream.read(_LONGEST_MARK)
            unpack = next((unpack for mark, unpack in _UNPACKERS.items() if start.startswith(mark)), None)
            whole = _Rejoined(start, self._stream)
            self._content: _Source = whole if unpack is None else unpack(whole)
        except Exception as error:  # file systems of fsspec raise what they like
            raise _unreadable(self.url, error) from error

    def __enter__(self) -> "WholeStream":
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._stream, Pipe):
            self._stream.ignore_errors = True  # a command that is cut short ends with an error
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        """Reads the next bytes."""
        data = self._content.read(size)
        self._tail = (self._tail + data)[-_END_OF_TAR:]
        return data

    def check_end(self) -> None:
        """Checks, after the last member, that the archive was not cut off between two members.

        Raises:
            ShardError: its end is missing, or the command failed.
        """
        while self.read(_SKIP):
            pass
        if isinstance(self._stream, Pipe) and self._stream.proc.wait():
            raise ShardError(f"{self.url}: the command ended with status {self._stream.proc.returncode}")
        if any(self._tail) or len(self._tail) < _END_OF_TAR:
            raise ShardError(f"{self.url}: the end of the archive is missing; the file is truncated")

    def __str__(self) -> str:
        return self.url  # WebDataset puts it into messages


class _Rejoined:
    """A stream whose first bytes were read already."""

    def __init__(self, start: bytes, rest: _Source) -> None:
        self._start, self._rest = start, rest

    def read(self, size: int) -> bytes:
        """Reads at most so many bytes; none at the end."""
        data, self._start = self._start[:size], self._start[size:]
        return data or self._rest.read(size)


def _open_local(path: str, folder: str | os.PathLike | None) -> tuple[_Stream, int]:
    path = local_path(path)
    if folder is not None and not leads_inside(path, local_path(folder)):
        raise ShardError(f"{path}: is a link out of the data set's folder; copy the file itself there")
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):  # opening a named pipe would wait forever
        raise ShardError(f"{path}: is not a regular file")
    return open(path, "rb", buffering=0), found.st_size


def leads_inside(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Tells whether a path, links resolved, is in a folder."""
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def _unreadable(url: str, error: Exception) -> ShardError:
    if isinstance(error, ShardError):
        return error
    if isinstance(error, FileNotFoundError):
        # fsspec says so of any server that it cannot reach, too.
        return ShardError(f"{url}: no such file" + (f" ({error.__cause__})" if error.__cause__ else ""))
    return ShardError(f"{url}: cannot be read ({error})")
