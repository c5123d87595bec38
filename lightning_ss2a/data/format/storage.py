"""Reads local files and URLs the same way: whole files and byte ranges."""

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import fsspec
import webdataset
from webdataset.gopen import Pipe

from lightning_ss2a.errors import ShardError, one_line
from lightning_ss2a.files import is_local, local_path

if TYPE_CHECKING:
    from lightning_ss2a.data.format.web import WebFile

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Names that files of a data set may have: no separators, no ``..``, nothing that a shell reads (``pipe:`` URLs)."""

_SKIP = 1 << 20


class _Stream(Protocol):
    """What is read of an open file."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def seek(self, offset: int, /) -> int: ...

    def close(self) -> None: ...


def is_web(url: str) -> bool:
    """Tells whether it is the URL of a web server."""
    return url.startswith(("http://", "https://"))


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
        self._web: WebFile | None = None
        self._remote: tuple[fsspec.AbstractFileSystem, str] | None = None
        self.size: int | None = None
        """Bytes, where known without reading."""
        try:
            if is_local(self.url):
                self._stream, self.size = open_local(self.url, folder)
            elif is_web(self.url):
                self._web = _web_file(self.url)
            elif not self.url.startswith("pipe:"):
                self._remote = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # file systems of fsspec raise what they like
            raise unreadable(self.url, error) from error

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
            if self._web is not None:
                return self._web.read_into(buffer, offset)
            if self._remote is not None:
                file_system, path = self._remote
                found = file_system.cat_file(path, start=offset, end=offset + len(buffer))
                buffer[: len(found)] = found
                return len(found)
            return self._fill(buffer, self._stream_at(offset))
        except Exception as error:  # file systems of fsspec raise what they like
            raise unreadable(self.url, error) from error

    def read_all(self) -> bytes:
        """Reads the whole file.

        Raises:
            ShardError: the file cannot be read.
        """
        try:
            if self._web is not None:
                return self._web.read_all()
            if self._remote is not None:
                return self._remote[0].cat_file(self._remote[1])
            content = self._stream_at(0).read()
            self._position += len(content)
            if self._pipe is not None:
                check_status(self._pipe)
            return content
        except Exception as error:  # file systems of fsspec raise what they like
            raise unreadable(self.url, error) from error

    def _fill(self, buffer: memoryview, stream: _Stream) -> int:
        filled = 0
        while filled < len(buffer):
            found = stream.readinto(buffer[filled:])
            if not found:
                if self._pipe is not None:
                    check_status(self._pipe)
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


def _web_file(url: str) -> "WebFile":
    from lightning_ss2a.data.format.web import WebFile  # imports aiohttp, which local files do without

    return WebFile(url)


def check_status(pipe: Pipe) -> None:
    """Waits for a command, after its last byte.

    Raises:
        OSError: it failed, so what it gave may not be all.
    """
    if status := pipe.proc.wait():
        raise OSError(f"the command ended with status {status}")


def open_local(path: str, folder: str | os.PathLike | None) -> tuple[_Stream, int]:
    """Opens a file, which must lie in the folder if there is one; gives its size in bytes, too.

    Raises:
        ShardError: a link out of the folder, or not a regular file.
        OSError: it cannot be opened.
    """
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


def unreadable(url: str, error: Exception) -> ShardError:
    """Makes the user's error of whatever went wrong while a file was read."""
    if isinstance(error, ShardError):
        return error
    if isinstance(error, FileNotFoundError):
        # File systems of fsspec say so of servers that they cannot reach, too.
        return ShardError(f"{url}: no such file" + (f" ({error.__cause__})" if error.__cause__ else ""))
    reason = "it does not fit in memory" if isinstance(error, MemoryError) else one_line(error)
    return ShardError(f"{url}: cannot be read ({reason})")
