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
            for (_, key), members in groupby(_Tar(stream, source).members(), lambda m: (m.archive, m.key)):
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


class _Tar:
    """A stream of archives, read block by block."""

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self._stream, self._source = stream, source
        self._offset = 0
        self._archive = 0
        self._place = source
        self._extended: dict[str, bytes] | None = None
        self._shared: dict[str, bytes] = {}

    def members(self) -> Iterator[_Member]:
        """Reads the files that belong to samples."""
        while (header := self._next_header()) is not None:
            if header.kind in _EXTENSIONS:
                self._extend(header)
                continue
            name, size = self._name_and_size(header)
            where = f"{self._place}: member {_short(name)}"
            if _is_folder(header, name, where):
                continue
            content = self._content(size, LARGEST_SAMPLE, where)
            if split := split_name(name):
                yield _Member(self._archive, *split, content, where)

    def _next_header(self) -> _Header | None:
        """Reads the next header, past the end of an archive; None at the end of the stream."""
        zeros = 0
        while block := self._stream.read(RECORD):
            self._place = f"{self._source}: byte {self._offset}"
            if block.strip(b"\0"):
                header = _read_header(block, self._place)
                if zeros:
                    self._begin_archive(zeros)
                self._offset += RECORD
                return header
            self._offset += len(block)
            zeros += len(block)
            if self._extended is not None:
                raise ShardError(f"{self._place}: the member of an extended header is missing; the file is damaged")
            if zeros > MOST_ZEROS:
                raise ShardError(f"{self._place}: more than {MOST_ZEROS >> 20} MiB of zeros; damaged, or not a tar")
        if not self._offset:
            raise ShardError(f"{self._source}: is empty")
        if zeros < _END:
            raise ShardError(f"{self._source}: the end of the archive is missing; the file is truncated")
        return None

    def _begin_archive(self, zeros: int) -> None:
        if zeros != _END and (self._offset - self._archive) % _PADDED:
            raise ShardError(
                f"{self._place}: the {zeros} bytes of zeros before it are no usual end of an archive: damaged, or "
                "joined of tars with another blocking factor; give those one by one"
            )
        self._archive, self._shared = self._offset, {}

    def _extend(self, header: _Header) -> None:
        """Reads an extended header of the next member, or of all that follow."""
        content = self._content(header.size, LARGEST_EXTENSION, f"{self._place}: extended header")
        if header.kind == b"g":
            self._shared.update(_pax_records(content, self._place))
            return
        self._extended = self._extended or {}
        if header.kind == b"L":
            self._extended["path"] = content.partition(b"\0")[0]
        elif header.kind == b"x":
            self._extended.update(_pax_records(content, self._place))

    def _name_and_size(self, header: _Header) -> tuple[str, int]:
        records = self._shared | (self._extended or {})
        self._extended = None
        name = records.get("path") or header.name
        if len(name) > LONGEST_NAME:
            raise ShardError(f"{self._place}: the member's name has {len(name)} bytes, at most {LONGEST_NAME} are read")
        return name.decode(errors="surrogateescape"), int(records.get("size", header.size))

    def _content(self, size: int, most: int, where: str) -> bytes:
        if size > most:
            raise ShardError(f"{where} has {size} bytes, at most {most} are read")
        parts, missing = [], -(-size // RECORD) * RECORD
        self._offset += missing
        while missing and (part := self._stream.read(min(missing, _AT_ONCE))):
            parts.append(part)
            missing -= len(part)
        if missing:
            raise ShardError(f"{where} is cut off; the file is truncated or damaged")
        return (parts[0] if len(parts) == 1 else b"".join(parts))[:size]


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
