"""Reads files of web servers: what may pass is tried again, and files of a server without byte ranges are copied."""

import asyncio
import io
import logging
import mmap
import tempfile
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

import aiohttp
import fsspec

from lightning_ss2a.errors import ShardError, one_line

TRIES = 4
"""Times that a server is asked before its error is the user's."""
FIRST_PAUSE = 1.0
"""Seconds before the second try; each pause is twice the one before."""
LONGEST_SILENCE = 15.0
"""Seconds without a connection or a byte after which a try has failed."""
COPIES = 4
"""Files of servers without byte ranges that a process keeps, without a name, in the folder of temporary files."""

_PARTIAL, _BEYOND_END = 206, 416
_MISSING = (404, 410)
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)

_one_at_a_time = threading.Lock()

_Result = TypeVar("_Result")
logger = logging.getLogger(__name__)


class WebFile:
    """A file of a web server, read by byte ranges through fsspec.

    Args:
        url: ``http://`` or ``https://``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._copy: memoryview | None = None

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fills a buffer with the bytes from an offset on; returns how many there were.

        Raises:
            ShardError: with the status of the server, or what else was wrong, after all tries.
        """
        filled = 0
        while filled < len(buffer):
            found = self._range(offset + filled, offset + len(buffer))
            if not found:
                break
            buffer[filled : filled + len(found)] = found
            filled += len(found)
        return filled

    def read_all(self) -> bytes:
        """Reads the whole file.

        Raises:
            ShardError: see :meth:`read_into`.
        """
        return _patiently(self.url, lambda: file_system(self.url).cat_file(self.url))

    def _range(self, start: int, stop: int) -> bytes | memoryview:
        """Reads bytes of a range: perhaps not all of them, none at the end of the file."""
        if self._copy is None:
            try:
                return _patiently(self.url, partial(_ask_range, self.url, start, stop))[: stop - start]
            except _NoRangesError as answer:
                with _one_at_a_time:  # threads read the blocks of a shard, and would each copy it
                    self._copy = _download(self.url, answer.version)
        return self._copy[start:stop]


class WebStream(io.RawIOBase):
    """A file of a web server from its start to its end; one read is one request."""

    def __init__(self, url: str) -> None:
        self._file = WebFile(url)
        self._position = 0

    def readable(self) -> bool:
        """Tells that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes; see :meth:`WebFile.read_into`."""
        found = self._file.read_into(memoryview(buffer).cast("B"), self._position)
        self._position += found
        return found


class _NoRangesError(Exception):
    """The answer to a range is the whole file; holds what tells one version of it from another."""

    def __init__(self, version: tuple[str | None, ...]) -> None:
        super().__init__()
        self.version = version


async def _check_answer(answer: aiohttp.ClientResponse) -> None:
    """Refuses an answer before its body is read."""
    answer.raise_for_status()
    if "Range" in answer.request_info.headers and answer.status != _PARTIAL:
        raise _NoRangesError(tuple(answer.headers.get(name) for name in ("ETag", "Last-Modified", "Content-Length")))


def file_system(url: str) -> fsspec.AbstractFileSystem:
    """Gives fsspec's instance, which is one for each process and thread, with its connections."""
    timeout = aiohttp.ClientTimeout(total=None, connect=LONGEST_SILENCE, sock_read=LONGEST_SILENCE)
    return fsspec.core.url_to_fs(url, timeout=timeout, raise_for_status=_check_answer)[0]


def _ask_range(url: str, start: int, stop: int) -> bytes:
    try:
        return file_system(url).cat_file(url, start=start, end=stop)
    except aiohttp.ClientResponseError as error:
        if error.status == _BEYOND_END:
            return b""
        raise


@lru_cache(maxsize=COPIES)
def _download(url: str, version: tuple[str | None, ...]) -> memoryview:
    """Copies a file to one without a name, which goes with the process however that ends."""
    _warn_of_copies(url.split("/")[2])
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile() as copy:
            _patiently(url, lambda: _copy_to(copy, url))
            size = copy.tell()
            return memoryview(mmap.mmap(copy.fileno(), size, access=mmap.ACCESS_READ) if size else b"")
    except OSError as error:
        raise ShardError(f"{url}: cannot be copied to {folder} ({error}); set TMPDIR to a folder with room") from error


@lru_cache
def _warn_of_copies(server: str) -> None:
    logger.warning(
        "%s knows no byte ranges: files are copied to %s, and the last %d kept; to train, copy the data set first",
        server,
        tempfile.gettempdir(),
        COPIES,
    )


def _copy_to(copy: Any, url: str) -> None:
    copy.seek(0)
    copy.truncate()
    file_system(url).get_file(url, copy)
    copy.flush()


def _patiently(url: str, ask: Callable[[], _Result]) -> _Result:
    """Asks a server until it answers, or has an error that will not pass."""
    for number in range(1, TRIES + 1):
        try:
            return ask()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            if not _may_pass(error):
                raise ShardError(f"{url}: {_reason(error)}") from error
            if number == TRIES:
                raise ShardError(f"{url}: {_reason(error)}, {TRIES} times; try again later") from error
            time.sleep(FIRST_PAUSE * 2 ** (number - 1))
    raise AssertionError("unreachable")


def _may_pass(error: Exception) -> bool:
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _MAY_PASS
    passing = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError)
    return isinstance(error, passing) and not isinstance(error, aiohttp.ClientSSLError)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.TooManyRedirects):
        return "the server redirects without end"
    if isinstance(error, aiohttp.ClientResponseError):
        missing = "no such file: " if error.status in _MISSING else ""
        return f"{missing}the server answers with status {error.status} ({' '.join(error.message.split())})"
    if isinstance(error, asyncio.TimeoutError):
        return f"the server is silent for {LONGEST_SILENCE:g} seconds"
    return f"the connection fails ({one_line(error)})"
