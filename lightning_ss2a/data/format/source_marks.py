"""Marks what rows are read from, to notice when it changes before a build goes on."""

import hashlib
import os
from typing import Any

import fsspec

from lightning_ss2a.data.format.storage import RangeReader, is_web
from lightning_ss2a.files import is_local, local_path

_END = 1 << 16
_VERSION_FACTS = ("size", "etag", "lastmodified", "mtime", "updated")


def source_mark(url: str | os.PathLike) -> str:
    """Describes the content of a file without reading all of it; empty where nothing can be known.

    Of a local file: its size, when it was changed, and a sha256 of its first and last 64 KiB. Of a URL: what its file
    system tells of size and version. Of a command (``pipe:``): nothing.

    Raises:
        ShardError: no such local file, or it cannot be read.
    """
    url = os.fspath(url)
    if is_local(url):
        return _local_mark(url)
    if url.startswith("pipe:"):
        return ""
    try:
        facts = _facts(url)
    except Exception:  # file systems of fsspec raise what they like; reading it will tell
        return ""
    known = {name.lower().replace("-", ""): str(fact) for name, fact in facts.items() if fact is not None}
    version = [known.get(name, "") for name in _VERSION_FACTS]
    return ", ".join(version) if any(version) else ""


def _facts(url: str) -> dict[str, Any]:
    if is_web(url):
        from lightning_ss2a.data.format.web import file_system  # only here, as it takes a while

        return file_system(url).info(url)
    remote, path = fsspec.core.url_to_fs(url)
    return remote.info(path)


def _local_mark(path: str) -> str:
    with RangeReader(path) as file:
        assert file.size is not None
        ends = bytearray(min(file.size, 2 * _END))
        head = memoryview(ends)[:_END]
        tail = memoryview(ends)[_END:]
        file.read_into(head, 0)
        file.read_into(tail, file.size - len(tail))
    return f"{file.size} bytes, {os.stat(local_path(path)).st_mtime_ns} ns, {hashlib.sha256(ends).hexdigest()}"
