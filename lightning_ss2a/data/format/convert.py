"""Converts what callers hand to the writer into the columns that are stored."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_ss2a.data.format.columns import Column, Columns, Ragged, all_finite, column_problems, dense
from lightning_ss2a.data.format.schema import ColumnSpec
from lightning_ss2a.errors import ShardError

MOST_LOST = 0.01
"""Part of an embedding's length that rounding to the storage dtype may change; float16 usually changes 0.0003."""


class ColumnConverter:
    """Converts and checks columns.

    Args:
        specs: the columns of the data set.
        num_classes: number of its classes.
    """

    def __init__(self, specs: Mapping[str, ColumnSpec], num_classes: int) -> None:
        self.specs = specs
        self.num_classes = num_classes

    def __call__(self, columns: Mapping[str, Any], where: str, name_row: Callable[[int], str]) -> Columns:
        """Converts columns to what is stored, and fills in those that may be left out.

        ``name`` is empty by default, ``pair_origin`` annotated, ``group`` a hash of the key (each row its own group),
        ``class_index`` 0 where there is only one class.

        Args:
            columns: rows by column.
            where: start of messages about whole columns.
            name_row: tells the start of messages about a row by its position in the columns.

        Raises:
            ShardError: names row and field.
        """
        unknown = set(columns) - set(self.specs)
        if unknown:
            raise ShardError(f"{where}: no field {sorted(unknown)[0]!r} here; fields: {', '.join(self.specs)}")
        if "key" not in columns:
            raise ShardError(f"{where}: column key is missing: each row needs a name of its own")
        rows = len(columns["key"])
        given = {name: _convert(columns[name], self.specs[name], rows, name, where, name_row) for name in columns}
        return {
            name: given[name] if name in given else self._default(name, dense(given["key"]), where)
            for name in self.specs
        }

    def _default(self, name: str, keys: np.ndarray, where: str) -> Column:
        if name == "name":
            return np.zeros(len(keys), "S1")
        if name == "pair_origin" or (name == "class_index" and self.num_classes == 1):
            return np.zeros(len(keys), self.specs[name].dtype)
        if name == "group":
            return np.array([group_of(key) for key in keys.tolist()], np.int64)
        raise ShardError(f"{where}: field {name} is missing")


def group_of(text: bytes) -> int:
    """Numbers a group by a text, the same everywhere: 63 bits of its sha256."""
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def _convert(value: Any, spec: ColumnSpec, rows: int, name: str, where: str, name_row: Callable[[int], str]) -> Column:
    column: Column
    try:
        if spec.is_text:
            column = _text(value)
        elif spec.ragged:
            column = _ragged(value, spec)
        else:
            column = _narrow(_dense(value), spec.dtype)
    except _Bad as bad:
        raise _error(where, bad.row, name, bad.message, name_row) from None
    for row, message in column_problems(column, spec, rows):
        raise _error(where, row, name, message, name_row)
    return column


class _Bad(Exception):  # noqa: N818
    def __init__(self, row: int | None, message: str) -> None:
        self.row, self.message = row, message


def _error(where: str, row: int | None, name: str, message: str, name_row: Callable[[int], str]) -> ShardError:
    place = f"{where}:" if row is None else f"{name_row(row)},"
    return ShardError(f"{place} field {name} {message}")


def _text(value: Any) -> np.ndarray:
    texts = value.tolist() if isinstance(value, np.ndarray) else list(value)
    encoded = []
    for row, text in enumerate(texts):
        if not isinstance(text, str | bytes):
            raise _Bad(row, f"is {type(text).__name__}, needs text")
        try:
            encoded.append(text.encode() if isinstance(text, str) else text)
        except UnicodeEncodeError:
            raise _Bad(row, f"is not UTF-8 text: {text!r}") from None
        if b"\0" in encoded[-1]:
            raise _Bad(row, "holds a NUL character")
    longest = max(map(len, encoded), default=1)
    return np.array(encoded, dtype=f"S{max(1, longest)}")


def _dense(value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different shapes
        shapes = [np.shape(row) for row in value]
        row = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
        raise _Bad(row, f"has shape {list(shapes[row])}, the rows before have {list(shapes[0])}") from None
    if array.dtype.kind not in "fiu":
        raise _Bad(None, f"has dtype {array.dtype}, needs numbers")
    return array


def _narrow(array: np.ndarray, dtype: str) -> np.ndarray:
    """Copies an array to the storage dtype; what does not fit is refused."""
    if array.dtype.kind == "f" and np.dtype(dtype).kind != "f":
        raise _Bad(None, f"has dtype {array.dtype}, needs whole numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = array.astype(dtype)
    if narrow.dtype.kind == "f":
        if not all_finite(narrow):
            _refuse_not_finite(array, narrow)
        _refuse_vanishing(array, narrow)
    elif array.size and (array.min() < np.iinfo(dtype).min or array.max() > np.iinfo(dtype).max):
        raise _Bad(None, f"has numbers that do not fit {dtype}")
    return narrow


def _refuse_not_finite(array: np.ndarray, narrow: np.ndarray) -> None:
    position = np.argwhere(~np.isfinite(narrow))[0]
    number = array[tuple(position)]
    if np.isfinite(number):
        raise _Bad(
            int(position[0]),
            f"holds {number:g}, which does not fit {narrow.dtype}; {_other_scale(narrow)}",
        )
    raise _Bad(int(position[0]), "is NaN or infinite")


def _refuse_vanishing(array: np.ndarray, narrow: np.ndarray) -> None:
    """Refuses embeddings so short that rounding changes them, to zero in the end; single numbers near zero are usual.

    Rounding takes at most half of the least number that the dtype has, or a fraction far below ``MOST_LOST``: only
    embeddings without any number above a limit can lose that much, and few are measured.
    """
    if array.dtype.kind != "f" or array.dtype.itemsize <= narrow.dtype.itemsize or array.ndim < 2 or not array.size:
        return
    largest = np.maximum(array.max(axis=-1), -array.min(axis=-1)).astype(np.float64)
    limit = float(np.finfo(narrow.dtype).smallest_subnormal) / 2 * math.sqrt(array.shape[-1]) / MOST_LOST
    short = np.argwhere((largest > 0) & (largest < limit))
    if not len(short):
        return
    at = tuple(short.T)
    exact = array[at] / largest[at][:, None]  # or squares of the least numbers would be zero
    lost = np.linalg.norm(narrow[at] / largest[at][:, None] - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
    for position in np.flatnonzero(lost > MOST_LOST):
        raise _Bad(
            int(short[position][0]),
            f"holds numbers up to {largest[tuple(short[position])]:g} only, which {narrow.dtype} changes by "
            f"{lost[position]:.0%}; {_other_scale(narrow)}",
        )


def _other_scale(narrow: np.ndarray) -> str:
    return "scale it" + (" or use dtype float32" if narrow.dtype == np.float16 else "")


def _ragged(value: Ragged | Sequence[Any], spec: ColumnSpec) -> Ragged:
    if not isinstance(value, Ragged):
        rows = [np.asarray(row) for row in value]
        for i, items in enumerate(rows):
            if (items.shape[1:] != spec.inner and items.size) or items.ndim == 0:
                raise _Bad(i, f"has shape {list(items.shape)}, needs {['items', *spec.inner]}")
        dtype = np.dtype(spec.dtype)
        # An empty list is float64 to numpy, whatever it would hold.
        rows = [items.reshape(-1, *spec.inner) if items.size else np.empty((0, *spec.inner), dtype) for items in rows]
        value = Ragged.from_rows(rows, spec.inner, dtype)
    try:
        return Ragged(_narrow(_dense(value.values), spec.dtype), np.array(value.offsets, np.int64))
    except _Bad as bad:
        row = None if bad.row is None else int(np.searchsorted(value.offsets, bad.row, side="right") - 1)
        raise _Bad(row, bad.message) from None
