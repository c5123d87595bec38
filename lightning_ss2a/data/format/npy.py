"""Encodes and decodes ``.npy`` files without copies and without pickles."""

import ast
import io
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from lightning_ss2a.errors import ShardError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_TRIES = 10


def encode(array: np.ndarray) -> bytes:
    """Makes an ``.npy`` file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode(data: memoryview, where: str) -> np.ndarray:
    """Reads the array of an ``.npy`` file, sharing its memory (a copy where the file is in Fortran order).

    Raises:
        ShardError: damaged, or it holds Python objects.
    """
    length_bytes = 2 if bytes(data[6:7]) == b"\x01" else 4
    start = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    if bytes(data[:6]) != _MAGIC or start > min(len(data), _LONGEST_HEADER):
        raise ShardError(f"{where}: not an .npy file")
    parsed = _parse_header(bytes(data[8 + length_bytes : start]))
    if isinstance(parsed, str):
        raise ShardError(f"{where}: {parsed}")
    shape, dtype, fortran_order = parsed
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count * dtype.itemsize:
        raise ShardError(
            f"{where}: {len(data) - start} bytes of numbers, but shape {list(shape)} of {dtype} needs "
            f"{count * dtype.itemsize}"
        )
    try:
        numbers = np.frombuffer(data, dtype, count, start)
        return np.ascontiguousarray(numbers.reshape(shape, order="F")) if fortran_order else numbers.reshape(shape)
    except (ValueError, OverflowError):  # too many axes, or an axis too long beside an empty one
        raise ShardError(f"{where}: no array has {len(shape)} axes of sizes {str(list(shape))[:60]}") from None


@lru_cache(maxsize=1024)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], np.dtype, bool] | str:
    """Reads shape, dtype and whether it is in Fortran order, or what is wrong.

    Cached: blocks of one data set have the same few headers.
    numpy's own reader also repairs headers of Python 2, by a tokenizer that fails in ways of its own.
    """
    try:
        facts = _literal(header.decode("latin1").strip())
        dtype, fortran_order, shape = np.dtype(facts["descr"]), facts["fortran_order"], facts["shape"]
        if not isinstance(facts["descr"], str) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("structured or negative")
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError):
        return "damaged .npy header"
    if dtype.hasobject:
        return "holds pickled Python objects, which are never loaded"
    return (tuple(shape), dtype, bool(fortran_order)) if dtype.itemsize else "damaged .npy header"


def _literal(text: str) -> Any:
    """Reads a Python literal.

    Where another thread parses at the same time, Python 3.11 may fail with a SystemError ("AST constructor recursion
    depth mismatch", python/cpython#106905) that says nothing of the text: it is read again.
    """
    for _ in range(_TRIES - 1):
        with suppress(SystemError):
            return ast.literal_eval(text)
    return ast.literal_eval(text)
