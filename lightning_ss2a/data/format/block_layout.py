"""Blocks of rows as tar entries, and back: ``000017.visual.npy``, ``000017.sources.values.npy`` and so on."""

from collections.abc import Collection, Mapping

import numpy as np

from lightning_ss2a.data.format import npy
from lightning_ss2a.data.format.columns import Column, Columns, Ragged, column_problems
from lightning_ss2a.data.format.schema import ColumnSpec
from lightning_ss2a.data.format.tar import read_entries, write_entries
from lightning_ss2a.errors import ShardError

PICKLES = ("pyd", "pickle", "pkl", "pth", "pt")


def encode_block(columns: Mapping[str, Column], number: int) -> bytes:
    """The tar entries of a block."""
    sample: dict[str, str | bytes] = {"__key__": f"{number:06d}"}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            sample[f"{name}.values.npy"] = npy.encode(column.values)
            sample[f"{name}.offsets.npy"] = npy.encode(column.offsets)
        else:
            sample[f"{name}.npy"] = npy.encode(_narrowest(column) if column.dtype.kind == "S" else column)
    return write_entries([sample])


def _narrowest(text: np.ndarray) -> np.ndarray:
    """Text as wide as the longest of this block, so that equal rows are equal bytes however they were put together."""
    return text.astype(f"S{max(1, *map(len, text.tolist()))}")


def decode_block(
    buffer: memoryview,
    specs: Mapping[str, ColumnSpec],
    number: int,
    rows: int,
    where: str,
    wanted: Collection[str] | None = None,
) -> Columns:
    """The columns of a block, sharing its memory.

    Args:
        buffer: tar entries.
        specs: all columns of the data set.
        number: which block of its shard it is.
        rows: its number of rows.
        where: start of error messages: file and block.
        wanted: columns to decode and check; None: all.

    Raises:
        ShardError: anything but what the manifest says.
    """
    arrays = block_members(buffer, specs, number, where)
    columns: Columns = {}
    for name in specs if wanted is None else wanted:
        columns[name] = block_column(arrays, specs[name], name, where)
        check_column(columns[name], specs[name], rows, where, name)
    return columns


def block_column(members: Mapping[str, memoryview], spec: ColumnSpec, name: str, where: str) -> Column:
    """A column from the members of its block, not checked yet.

    Raises:
        ShardError: it is not an ``.npy`` file.
    """
    parts = [npy.decode(members[f"{name}.{suffix}"], f"{where}, field {name}") for suffix in _suffixes(spec)]
    return Ragged(*parts) if spec.ragged else parts[0]


def check_column(column: Column, spec: ColumnSpec, rows: int, where: str, name: str) -> None:
    """Raise the first problem of a column.

    Raises:
        ShardError: names row (in its block) and field.
    """
    for row, message in column_problems(column, spec, rows):
        place = "" if row is None else f"row {row}, "
        raise ShardError(f"{where}, {place}field {name} {message}")


def _suffixes(spec: ColumnSpec) -> tuple[str, ...]:
    return ("values.npy", "offsets.npy") if spec.ragged else ("npy",)


def block_members(
    buffer: memoryview, specs: Mapping[str, ColumnSpec], number: int, where: str
) -> dict[str, memoryview]:
    """The members of a block by suffix (``visual.npy``), all of them and no others.

    Raises:
        ShardError: damaged, or other members than expected.
    """
    key = f"{number:06d}"
    expected = {f"{name}.{suffix}" for name, spec in specs.items() for suffix in _suffixes(spec)}
    found = {}
    for member, content in read_entries(buffer, where):
        prefix, _, suffix = member.partition(".")
        refuse_pickle(member, where)
        if prefix != key or suffix not in expected:
            raise ShardError(f"{where}: member {member!r} does not belong here; expected {key}.FIELD.npy")
        found[suffix] = content
    missing = sorted(expected - found.keys())
    if missing:
        raise ShardError(f"{where}: member {key}.{missing[0]} is missing")
    return found


def refuse_pickle(member: str, where: str) -> None:
    """Say that pickles are never loaded.

    Raises:
        ShardError: the member's name is that of a pickle.
    """
    if member.rpartition(".")[2].lower() in PICKLES:
        raise ShardError(f"{where}: member {member!r} is a pickle, which is never loaded; store .npy and .json only")


def slice_columns(columns: Mapping[str, Column], start: int, stop: int) -> Columns:
    """Rows start to stop, without copying."""
    return {name: column[start:stop] for name, column in columns.items()}


def empty_column(spec: ColumnSpec) -> Column:
    """A column without rows."""
    dtype = np.dtype("S1" if spec.is_text else spec.dtype)
    values = np.empty((0, *spec.inner), dtype)
    return Ragged(values, np.zeros(1, np.int64)) if spec.ragged else values
