"""Holds, checks, cuts and joins columns as numpy arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_ss2a.data.format.schema import ColumnSpec


@dataclass(frozen=True)
class Ragged:
    """A column with any number of items in each row.

    Attributes:
        values: all items, [items, ...].
        offsets: where each row's items start and the last one's end, int64 [rows + 1].
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> "Ragged":
        """Slices rows start to stop."""
        start, stop, _ = rows.indices(len(self))
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def row(self, index: int) -> np.ndarray:
        """Gives the items of one row, [items, ...]."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def take(self, index: np.ndarray) -> "Ragged":
        """Takes the rows with these numbers, int64 [rows], in this order."""
        starts, lengths = self.offsets[index], np.diff(self.offsets)[index]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        items = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[items], offsets)

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray], inner: tuple[int, ...], dtype: np.dtype) -> "Ragged":
        """Joins arrays [items, ...], one a row."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.concatenate([np.empty((0, *inner), dtype), *rows]), offsets)


Column = np.ndarray | Ragged
Columns = dict[str, Column]


def dense(column: Column) -> np.ndarray:
    """Gives a column that is known to have one item in each row, [rows, ...]."""
    assert isinstance(column, np.ndarray)
    return column


def ragged(column: Column) -> Ragged:
    """Gives a column that is known to have any number of items in each row."""
    assert isinstance(column, Ragged)
    return column


def join_columns(parts: Sequence[Column]) -> Column:
    """Lays the rows of several columns end to end."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Ragged):
        pieces = [ragged(part) for part in parts]
        lengths = np.concatenate([np.diff(part.offsets) for part in pieces])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Ragged(np.concatenate([part.values for part in pieces]), offsets)
    return np.concatenate([dense(part) for part in parts])


def all_finite(x: np.ndarray) -> bool:
    """Tells whether no float16 or float32 number is NaN or infinite.

    Reads bits as integers: non-finite numbers are the largest positive signed ones and the largest unsigned ones. Two
    integer maxima without a temporary array are many times as fast as ``np.isfinite`` on float16.
    """
    if x.size == 0:
        return True
    signed, unsigned = {2: (np.int16, np.uint16), 4: (np.int32, np.uint32)}[x.dtype.itemsize]
    positive, negative = {2: (0x7C00, 0xFC00), 4: (0x7F800000, 0xFF800000)}[x.dtype.itemsize]
    x = np.ascontiguousarray(x)
    return bool(x.view(signed).max() < positive and x.view(unsigned).max() < negative)


def zero_vectors(column: Column) -> np.ndarray:
    """Finds the rows with a vector of zeros, which has no direction: no cosine, and nothing to learn from.

    Args:
        column: embeddings, [rows, ..., width], or ragged.

    Returns:
        Their numbers, int64, increasing.
    """
    values = column.values if isinstance(column, Ragged) else column
    vectors = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    # Integers, many times as fast as float16; the shift takes the sign away, which a zero may have. Few vectors begin
    # with a zero, so that the rest of most is not looked at: each block is read once an epoch.
    bits = vectors.view({2: np.uint16, 4: np.uint32}[vectors.dtype.itemsize])
    zeros = np.flatnonzero(bits[:, 0] << 1 == 0)
    zeros = zeros[~(bits[zeros] << 1).any(axis=1)]
    if isinstance(column, Ragged):
        return np.unique(np.searchsorted(column.offsets, zeros, side="right") - 1)
    return np.unique(zeros // max(1, len(vectors) // max(1, len(column))))


def column_problems(column: Column, spec: ColumnSpec, rows: int) -> Iterator[tuple[int | None, str]]:
    """Finds what is wrong with a column, as (row, message); row None: the whole column."""
    if isinstance(column, Ragged) != spec.ragged:
        yield None, "is ragged" if spec.ragged is False else "is not ragged"
    elif isinstance(column, Ragged):
        yield from _ragged_problems(column, spec, rows)
    elif spec.is_text:
        yield from _text_problems(column, spec, rows)
    else:
        yield from _number_problems(column, spec, rows)


def _number_problems(column: np.ndarray, spec: ColumnSpec, rows: int) -> Iterator[tuple[int | None, str]]:
    if column.dtype != np.dtype(spec.dtype):
        yield None, f"has dtype {column.dtype}, needs {spec.dtype}"
    elif column.shape != (rows, *spec.inner):
        yield None, f"has shape {list(column.shape)}, needs {[rows, *spec.inner]}"
    elif spec.is_float and not all_finite(column):
        bad = ~np.isfinite(column).reshape(rows, -1).all(axis=1)
        yield from ((int(row), "is NaN or infinite") for row in np.flatnonzero(bad))
    elif spec.below is not None and rows:
        for row in np.flatnonzero((column < 0) | (column >= spec.below)):
            yield int(row), f"is {column[row]}, needs 0 to {spec.below - 1}"


def _ragged_problems(column: Ragged, spec: ColumnSpec, rows: int) -> Iterator[tuple[int | None, str]]:
    offsets, values = column.offsets, column.values
    if offsets.dtype != np.int64 or offsets.shape != (rows + 1,):
        yield None, f"has offsets {offsets.dtype} {list(offsets.shape)}, needs int64 {[rows + 1]}"
        return
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(values) or (lengths < 0).any():
        yield None, f"has offsets that do not go up from 0 to the number of items ({len(values)})"
        return
    for row in np.flatnonzero(lengths < spec.min_items):
        yield int(row), f"has {lengths[row]} items, needs at least {spec.min_items}"
    for item, message in _number_problems(values, spec, len(values)):
        yield None if item is None else int(np.searchsorted(offsets, item, side="right") - 1), message


def _text_problems(column: np.ndarray, spec: ColumnSpec, rows: int) -> Iterator[tuple[int | None, str]]:
    if column.dtype.kind != "S":
        yield None, f"has dtype {column.dtype}, needs bytes (numpy S)"
        return
    if column.shape != (rows,):
        yield None, f"has shape {list(column.shape)}, needs {[rows]}"
        return
    if spec.min_items:
        yield from ((int(row), "is empty") for row in np.flatnonzero(column == b""))
    if column.size and np.ascontiguousarray(column).view(np.uint8).max() >= 0x80:
        for row, text in enumerate(column.tolist()):
            try:
                text.decode()
            except UnicodeDecodeError:
                yield row, "is not UTF-8 text"
