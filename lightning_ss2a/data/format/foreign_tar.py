"""Reads tars that other tools wrote, a sample in each group of members; what it does not understand is an error.

It reads what GNU tar, bsdtar, Python, WebDataset and their like write of files and folders: v7, ustar, GNU (long names,
sizes in base 256) and pax (of its records ``path`` and ``size`` count), and several archives one after the other in a
file (``cat a.tar b.tar``). Folders and hidden files are left out, and so are ``__meta__`` files, as WebDataset does.

Python's own reader takes a damaged header for the end, stops at the end of the first archive, and follows sparse files
and extended headers wherever they lead. The bounds here are the constants below, and those of :mod:`.whole_file`.

What cannot be seen: tar has checksums of headers only, so bytes that changed inside a file, a long name or a pax record
are read as they are (gzip, bzip2 and xz have checksums of all); and whole members that are gone without a trace, such
as the rest of an archive that was cut off between two members before another one was joined to it.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO

from lightning_ss2a.data.format.tar import ENTRY_TYPES, RECORD
from lightning_ss2a.data.format.whole_file import open_whole
from lightning_ss2a.errors import ShardError

LONGEST_NAME = 4096
"""Bytes of a member's name."""
LARGEST_EXTENSION = 1 << 20
"""Bytes of an extended header (a long name, or pax records)."""
LARGEST_SAMPLE = 2 << 30
"""Bytes of the files of a sample together."""
MOST_MEMBERS = 1000
"""Files of a sample."""
MOST_ZEROS = 16 << 20
"""Bytes of zeros after the end of an archive."""

_AT_ONCE = 16 << 20
_END = 2 * RECORD
_PADDED = 20 * RECORD
"""GNU tar and Python fill up archives to whole records of this size; others end them with two blocks of zeros."""
_FILES = (b"0", b"\0", b"7")
_FOLDER = b"5"
_EXTENSIONS = (b"L", b"K", b"x", b"g")
_LINKS = (b"1", b"2")
_POSIX = b"ustar\0"


def read_samples(url: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """Reads the samples of a tar, perhaps compressed: files that follow each other and share their name up to a dot.

    Args:
        url: a local path, ``pipe:COMMAND``, or any URL of fsspec.

    Yields:
        ``__key__``: the name, with its folders, up to the first dot of the file's name; ``__url__``; and the bytes of
        each file by the rest of its name.

    Raises:
        ShardError: it cannot be opened, is damaged, cut off, beyond the bounds or the memory, or holds links or other
            things that are no files; names byte and member.
    """
    source = os.fspath(url)
    try:
        with open_whole(url) as stream:
            for (_, key), members in groupby(_members(stream, source), lambda member: (member.archive, member.key)):
                yield _sample(source, key, members)
    except MemoryError:
        raise ShardError(f"{source}: a sample does not fit in memory") from None


def _sample(source: str, key: str, members: Iterable["_Member"]) -> dict[str, Any]:
    sample: dict[str, Any] = {"__key__": key, "__url__": source}
    size = 0
    for member in members:
        size += len(member.content)
        if member.suffix in sample:
            raise ShardError(f"{member.where} comes twice in sample {_short(key)}")
        if size > LARGEST_SAMPLE or len(sample) - 2 >= MOST_MEMBERS:
            raise ShardError(
                f"{member.where}: sample {_short(key)} has more than {MOST_MEMBERS} files or {LARGEST_SAMPLE >> 30} "
                "GiB; the first dot of a file's name ends its key"
            )
        sample[member.suffix] = member.content
    return sample


def split_name(name: str) -> tuple[str, str] | None:
    """Splits a member's name into key and suffix, as WebDataset does; None where it is of no sample."""
    folder, slash, file = name.rpartition("/")
    base, dot, suffix = file.partition(".")
    top = name.partition("/")[0]
    if not base or not dot or (len(top) >= 4 and top.startswith("__") and top.endswith("__")):
        return None
    return folder + slash + base, suffix


@dataclass(frozen=True)
class _Member:
    archive: int
    key: str
    suffix: str
    content: bytes
    where: str


@dataclass(frozen=True)
class _Header:
    name: bytes
    size: int
    kind: bytes


def _members(stream: BinaryIO, source: str) -> Iterator[_Member]:
    """Reads the files that belong to samples, of all archives in the stream."""
    records: dict[str, bytes] = {}
    shared: dict[str, bytes] = {}
    offset = archive = zeros = 0
    extended = False
    while block := stream.read(RECORD):
        place = f"{source}: byte {offset}"
        offset += len(block)
        if not block.strip(b"\0"):
            zeros += len(block)
            if extended:
                raise ShardError(f"{place}: the member of an extended header is missing; the file is damaged")
            if zeros > MOST_ZEROS:
                raise ShardError(f"{place}: more than {MOST_ZEROS >> 20} MiB of zeros; damaged, or not a tar")
            continue
        header = _read_header(block, place)
        if zeros:
            start = offset - RECORD
            if zeros != _END and (start - archive) % _PADDED:
                raise ShardError(
                    f"{place}: the {zeros} bytes of zeros before it are no usual end of an archive: damaged, or joined "
                    "of tars with another blocking factor; give those one by one"
                )
            archive, zeros, shared = start, 0, {}
        extended = header.kind in _EXTENSIONS
        if extended:
            content = _read_content(stream, header.size, LARGEST_EXTENSION, f"{place}: extended header")
            if header.kind == b"L":
                records["path"] = content.partition(b"\0")[0]
            elif header.kind != b"K":
                (shared if header.kind == b"g" else records).update(_pax_records(content, place))
        else:
            name, size = _name_and_size(header, shared | records, place)
            where = f"{place}: member {_short(name)}"
            records = {}
            if _is_folder(header, name, where):
                continue
            content = _read_content(stream, size, LARGEST_SAMPLE, where)
            if split := split_name(name):
                yield _Member(archive, *split, content, where)
        offset += _padded(len(content))
    if not offset:
        raise ShardError(f"{source}: is empty")
    if zeros < _END:
        raise ShardError(f"{source}: the end of the archive is missing; the file is truncated")


def _name_and_size(header: _Header, records: dict[str, bytes], place: str) -> tuple[str, int]:
    name = records.get("path") or header.name
    if len(name) > LONGEST_NAME:
        raise ShardError(f"{place}: the member's name has {len(name)} bytes, at most {LONGEST_NAME} are read")
    return name.decode(errors="surrogateescape"), int(records.get("size", header.size))


def _is_folder(header: _Header, name: str, where: str) -> bool:
    """Tells folders from files, and refuses what is neither."""
    if header.kind in _FILES:
        return header.kind == b"\0" and name.endswith("/")
    if header.kind in _LINKS:
        raise ShardError(
            f"{where} is {ENTRY_TYPES[header.kind]}; write the tar with --dereference --hard-dereference, so that it "
            "holds the file itself"
        )
    if header.kind != _FOLDER:
        what = ENTRY_TYPES.get(header.kind, f"an entry of the unknown type {header.kind!r}")
        raise ShardError(f"{where} is {what}; only files and folders are read")
    return True


def _read_content(stream: BinaryIO, size: int, most: int, where: str) -> bytes:
    if size > most:
        raise ShardError(f"{where} has {size} bytes, at most {most} are read")
    parts, missing = [], _padded(size)
    while missing and (part := stream.read(min(missing, _AT_ONCE))):
        parts.append(part)
        missing -= len(part)
    if missing:
        raise ShardError(f"{where} is cut off; the file is truncated or damaged")
    return (parts[0] if len(parts) == 1 else b"".join(parts))[:size]


def _padded(size: int) -> int:
    return -(-size // RECORD) * RECORD


def _read_header(block: bytes, place: str) -> _Header:
    try:
        if len(block) < RECORD or _number(block[148:156]) != sum(block[:148]) + 8 * 32 + sum(block[156:]):
            raise ValueError
        size = _number(block[124:136])
    except ValueError:
        raise ShardError(f"{place}: is no tar header; the file is damaged, truncated, or not a tar") from None
    name, prefix = (field.partition(b"\0")[0] for field in (block[:100], block[345:500]))
    if prefix and block[257:263] == _POSIX:
        name = prefix + b"/" + name
    return _Header(name, size, block[156:157])


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # base 256, where octal digits do not suffice
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise ValueError
    return int(digits or b"0", 8)


def _pax_records(content: bytes, place: str) -> dict[str, bytes]:
    found, start = {}, 0
    while start < len(content):
        space = content.find(b" ", start, start + 9)
        length = content[start:space]
        end = start + int(length) if space > 0 and length.isdigit() else 0
        keyword, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(content) or content[end - 1 : end] != b"\n" or not equals:
            raise ShardError(f"{place}: damaged extended header")
        if keyword.startswith(b"GNU.sparse."):
            raise ShardError(f"{place}: the member is a sparse file; write the tar without --sparse")
        if keyword == b"size" and not (value.isdigit() and len(value) < 20):
            raise ShardError(f"{place}: damaged extended header: size {_short(value.decode(errors='replace'))}")
        if keyword in (b"path", b"size"):
            found[keyword.decode()] = value
        start = end
    return found


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
