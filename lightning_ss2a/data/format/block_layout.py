"""Encodes blocks of rows as tar entries, and back: ``000017.visual.npy``, ``000017.sources.values.npy`` and so on.

A member may be compressed, ``000017.visual.npy.gz``. The manifest says how many bytes the members of a block have once
unpacked, so that none is unpacked that is larger.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from lightning_ss2a.data.format import npy
from lightning_ss2a.data.format.columns import Column, Columns, Ragged, column_problems
from lightning_ss2a.data.format.compression import SUFFIX, Compression, compress, stated_size, unpack
from lightning_ss2a.data.format.manifest import Block
from lightning_ss2a.data.format.schema import ColumnSpec
from lightning_ss2a.data.format.tar import read_entries, write_entries
from lightning_ss2a.errors import ShardError

PICKLES = ("pyd", "pickle", "pkl", "pth", "pt")


@dataclass(frozen=True)
class Member:
    """A member of a block.

    Attributes:
        name: as in the tar.
        content: its bytes as stored.
        size: bytes of the ``.npy`` file that it is, or holds where it is compressed.
    """

    name: str
    content: memoryview
    size: int

    def unpack(self, where: str) -> memoryview:
        """Gives the ``.npy`` file.

        Raises:
            ShardError: damaged, or of another size; names the member.
        """
        return unpack(self.name, self.content, self.size, f"{where}: member {self.name!r}")


def encode_block(columns: Mapping[str, Column], number: int, compression: Compression = "none") -> tuple[bytes, int]:
    """Encodes a block as tar entries.

    Args:
        columns: the rows.
        number: which block of its shard it is.
        compression: ``gzip`` compresses the members for which it pays.

    Returns:
        The tar entries, and the bytes of their members before any of them was compressed.
    """
    members: dict[str, bytes] = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            members[f"{name}.values.npy"] = npy.encode(column.values)
            members[f"{name}.offsets.npy"] = npy.encode(column.offsets)
        else:
            members[f"{name}.npy"] = npy.encode(_narrowest(column) if column.dtype.kind == "S" else column)
    sample: dict[str, str | bytes] = {"__key__": f"{number:06d}"}
    for suffix, content in members.items():
        packed = compress(content) if compression == "gzip" else None
        sample |= {suffix: content} if packed is None else {suffix + SUFFIX: packed}
    return write_entries([sample]), sum(map(len, members.values()))


def _narrowest(text: np.ndarray) -> np.ndarray:
    """Makes text as wide as the longest of this block, so that equal rows are equal bytes however they came."""
    return text.astype(f"S{max(1, *map(len, text.tolist()))}")


def decode_block(
    buffer: memoryview,
    specs: Mapping[str, ColumnSpec],
    number: int,
    block: Block,
    where: str,
    wanted: Collection[str] | None = None,
) -> Columns:
    """Decodes the columns of a block; those that are not compressed share its memory.

    Args:
        buffer: tar entries.
        specs: all columns of the data set.
        number: which block of its shard it is.
        block: what the manifest says of it.
        where: start of error messages: file and block.
        wanted: columns to decode and check; None: all.

    Raises:
        ShardError: anything but what the manifest says.
    """
    members = block_members(buffer, specs, number, block, where)
    columns: Columns = {}
    for name in specs if wanted is None else wanted:
        columns[name] = block_column(members, specs[name], name, where)
        check_column(columns[name], specs[name], block.rows, where, name)
    return columns


def block_column(members: Mapping[str, Member], spec: ColumnSpec, name: str, where: str) -> Column:
    """Decodes a column from the members of its block; it is not checked yet.

    Raises:
        ShardError: it is not an ``.npy`` file, or damaged where it is compressed.
    """
    files = [members[f"{name}.{suffix}"].unpack(where) for suffix in _suffixes(spec)]
    parts = [npy.decode(file, f"{where}, field {name}") for file in files]
    return Ragged(*parts) if spec.ragged else parts[0]


def check_column(column: Column, spec: ColumnSpec, rows: int, where: str, name: str) -> None:
    """Raises the first problem of a column.

    Raises:
        ShardError: names row (in its block) and field.
    """
    for row, message in column_problems(column, spec, rows):
        place = "" if row is None else f"row {row}, "
        raise ShardError(f"{where}, {place}field {name} {message}")


def _suffixes(spec: ColumnSpec) -> tuple[str, ...]:
    return ("values.npy", "offsets.npy") if spec.ragged else ("npy",)


def block_members(
    buffer: memoryview, specs: Mapping[str, ColumnSpec], number: int, block: Block, where: str
) -> dict[str, Member]:
    """Finds the members of a block by what they hold (``visual.npy``): all of them, no others, nothing unpacked yet.

    Raises:
        ShardError: damaged, other members than expected, or of another size than the manifest says.
    """
    key = f"{number:06d}"
    expected = {f"{name}.{suffix}" for name, spec in specs.items() for suffix in _suffixes(spec)}
    found: dict[str, Member] = {}
    for name, content in read_entries(buffer, where):
        prefix, _, suffix = name.partition(".")
        refuse_pickle(name, where)
        array = suffix.removesuffix(SUFFIX)
        if prefix != key or array not in expected:
            raise ShardError(f"{where}: member {name!r} does not belong here; expected {key}.FIELD.npy")
        if array in found:
            raise ShardError(f"{where}: member {name!r} is there as {found[array].name!r}, too")
        size = len(content) if array == suffix else stated_size(content, f"{where}: member {name!r}")
        found[array] = Member(name, content, size)
    missing = sorted(expected - found.keys())
    if missing:
        raise ShardError(f"{where}: member {key}.{missing[0]} is missing")
    _check_sizes(found.values(), block, where)
    return found


def _check_sizes(members: Collection[Member], block: Block, where: str) -> None:
    total = 0
    for member in members:
        total += member.size
        if total > block.unpacked_bytes:
            raise ShardError(
                f"{where}: member {member.name!r} is said to unpack to {member.size} bytes, which is more than the "
                f"manifest leaves of the block's {block.unpacked_bytes}"
            )
    if total < block.unpacked_bytes:
        raise ShardError(f"{where}: its members unpack to {total} bytes, the manifest says {block.unpacked_bytes}")


def refuse_pickle(member: str, where: str) -> None:
    """Refuses pickles, which are never loaded.

    Raises:
        ShardError: the member's name is that of a pickle.
    """
    if member.rpartition(".")[2].lower() in PICKLES:
        raise ShardError(f"{where}: member {member!r} is a pickle, which is never loaded; store .npy and .json only")


def slice_columns(columns: Mapping[str, Column], start: int, stop: int) -> Columns:
    """Slices rows start to stop, without copying."""
    return {name: column[start:stop] for name, column in columns.items()}


def empty_column(spec: ColumnSpec) -> Column:
    """Makes a column without rows."""
    dtype = np.dtype("S1" if spec.is_text else spec.dtype)
    values = np.empty((0, *spec.inner), dtype)
    return Ragged(values, np.zeros(1, np.int64)) if spec.ragged else values
