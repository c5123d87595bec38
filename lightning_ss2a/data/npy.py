"""``.npy`` without copies and without pickles."""

import io
from functools import lru_cache

import numpy as np

from lightning_ss2a.data.errors import ShardError

_MAGIC = b"\x93NUMPY"


def encode(array: np.ndarray) -> bytes:
    """The bytes of an ``.npy`` file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode(data: memoryview, where: str) -> np.ndarray:
    """The array of an ``.npy`` file, sharing its memory.

    Raises:
        ShardError: damaged, or it holds Python objects.
    """
    length_bytes = 2 if bytes(data[6:7]) == b"\x01" else 4
    start = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    if bytes(data[:6]) != _MAGIC or start > min(len(data), 10_000):
        raise ShardError(f"{where}: not an .npy file")
    parsed = _parse_header(bytes(data[:start]))
    if isinstance(parsed, str):
        raise ShardError(f"{where}: {parsed}")
    shape, dtype = parsed
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count * dtype.itemsize:
        raise ShardError(
            f"{where}: {len(data) - start} bytes of numbers, but shape {list(shape)} of {dtype} needs "
            f"{count * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype, count, start).reshape(shape)


@lru_cache(maxsize=1024)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], np.dtype] | str:
    """Shape and dtype, or what is wrong. Cached: blocks of one data set have the same few headers."""
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran_order, dtype = read(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError):
        return "damaged .npy header"
    if dtype.hasobject:
        return "holds pickled Python objects, which are never loaded"
    if fortran_order and len(shape) > 1:
        return "is in Fortran order, needs C order"
    if any(size < 0 for size in shape) or dtype.itemsize == 0:
        return "damaged .npy header"
    return shape, dtype
