"""Compresses what a data set holds where that pays, and unpacks it within bounds.

Compressed members of a shard are called ``.npy.gz``, which plain WebDataset unpacks too. Equal content gives equal
bytes: the level is fixed and no time is written.
"""

import zlib
from typing import Literal

from lightning_ss2a.errors import ShardError

Compression = Literal["none", "gzip"]

SUFFIX = ".gz"
LEAST_SAVING = 0.1
"""Part of the bytes that compressing must save; what saves less is stored as it is, and read without unpacking."""
MOST_EXPANSION = 1032
"""Times as large as its gzip that content can be, by the format (RFC 1951): what is said to be larger is a lie."""

_LEVEL = 9
_GZIP = zlib.MAX_WBITS | 16
_LARGEST = 1 << 32
"""Bytes of content; a gzip's last four bytes tell its content's size up to here."""
_SHORTEST = 18
"""Bytes of a gzip without content: header and trailer."""


def compress(content: bytes) -> bytes | None:
    """Compresses content; None if that does not pay."""
    if len(content) >= _LARGEST:
        return None
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    packed = packer.compress(content) + packer.flush()
    return packed if len(packed) <= (1 - LEAST_SAVING) * len(content) else None


def stated_size(packed: memoryview, where: str) -> int:
    """Reads what a gzip says of the size of its content, in bytes, without unpacking it.

    Raises:
        ShardError: it is too short to be a gzip.
    """
    if len(packed) < _SHORTEST:
        raise ShardError(f"{where}: not a gzip file")
    return int.from_bytes(packed[-4:], "little")


def unpack(name: str, content: memoryview, size: int, where: str) -> memoryview:
    """Gives what a file holds: its bytes, or those that it unpacks to where its name says that it is compressed.

    Args:
        name: of the file.
        content: its bytes as stored.
        size: bytes that it holds; see :func:`decompress`.
        where: start of error messages.

    Raises:
        ShardError: it is damaged, or holds another number of bytes.
    """
    if name.endswith(SUFFIX):
        return decompress(content, size, where)
    if len(content) != size:
        raise ShardError(f"{where}: holds {len(content)} bytes, not the {size} that are stated")
    return content


def decompress(packed: memoryview, size: int, where: str) -> memoryview:
    """Unpacks a gzip whose content has a known size; never more than that is unpacked.

    Args:
        packed: the gzip.
        size: bytes of its content, as checked by whoever calls: so much memory is taken.
        where: start of error messages.

    Returns:
        The content, writable.

    Raises:
        ShardError: it is damaged, or its content has another size.
    """
    unpacker = zlib.decompressobj(_GZIP)
    try:
        content = unpacker.decompress(packed, size + 1)  # a byte more, so that too much is seen
    except zlib.error as error:
        raise ShardError(f"{where}: damaged gzip file ({error})") from None
    except (MemoryError, OverflowError):
        raise ShardError(f"{where}: its {size} bytes do not fit in memory once unpacked") from None
    if len(content) != size or not unpacker.eof or unpacker.unused_data:
        raise ShardError(f"{where}: unpacks to another size than the {size} bytes that it states")
    return memoryview(bytearray(content))
