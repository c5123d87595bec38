"""Reads and writes the little of tar that shards need: regular files with plain names, nothing else."""

import io
from collections.abc import Iterable, Iterator

import webdataset

from lightning_ss2a.errors import ShardError

RECORD = 512
END_OF_ARCHIVE = bytes(2 * RECORD)

ENTRY_TYPES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a named pipe",
    b"S": "a sparse file",
}
"""What an entry is that is no regular file."""


def write_entries(samples: Iterable[dict[str, str | bytes]]) -> bytes:
    """Writes WebDataset samples as tar entries without the end of archive; equal samples give equal bytes."""
    buffer = io.BytesIO()
    writer = webdataset.TarWriter(buffer, encoder=False, mtime=0)
    for sample in samples:
        writer.write(sample)
    size = writer.tarstream.offset
    writer.close()
    return buffer.getvalue()[:size]


def read_entries(buffer: memoryview, where: str) -> Iterator[tuple[str, memoryview]]:
    """Reads (name, content) of each member, without copying.

    Python's own reader follows extended headers, sparse files and sizes that send it in circles; this one does not.

    Raises:
        ShardError: damaged, or a member that is no regular file with a plain name.
    """
    offset, seen = 0, set()
    while offset < len(buffer):
        header = bytes(buffer[offset : offset + RECORD])
        if not any(header):
            if any(buffer[offset:]):
                raise ShardError(f"{where}: data after the end of the archive")
            return
        name, size = _read_header(header, f"{where}: byte {offset}")
        content = offset + RECORD
        if content + size > len(buffer):
            raise ShardError(f"{where}: member {name!r} is cut off; the file is truncated or damaged")
        if name in seen:
            raise ShardError(f"{where}: member {name!r} comes twice")
        seen.add(name)
        yield name, buffer[content : content + size]
        offset = content + -(-size // RECORD) * RECORD


def _read_header(header: bytes, where: str) -> tuple[str, int]:
    try:
        stored = int(header[148:156].rstrip(b"\0 ") or b"0", 8)
        size = int(header[124:136].rstrip(b"\0 "), 8)
        name = header[:100].rstrip(b"\0").decode("ascii")
    except ValueError:
        raise ShardError(f"{where}: damaged tar header") from None
    if len(header) < RECORD or stored != sum(header[:148]) + 8 * 32 + sum(header[156:]) or size < 0:
        raise ShardError(f"{where}: damaged tar header")
    kind = header[156:157]
    if kind not in (b"0", b"\0"):
        what = ENTRY_TYPES.get(kind, "an entry of an unknown type")
        raise ShardError(f"{where}: member {name!r} is {what}; shards hold regular files only")
    if any(header[345:500]) or "/" in name or "\\" in name or name.startswith("."):
        raise ShardError(f"{where}: member {name!r} is not a plain file name")
    return name, size
