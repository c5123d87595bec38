"""Sums whose value does not depend on their order: cosines in fixed point, added as integers.

Floating-point sums change with the split into batches and ranks. Integer sums do not, so a metric gives the same bits
on one process and on many.
"""

import torch
from torch import Tensor

FRACTION_BITS = 32  # steps of 2.3e-10, far below float32; 2**31 values of magnitude 1 fit
_SCALE = 2.0**FRACTION_BITS


def to_fixed_point(values: Tensor) -> Tensor:
    """Rounds values in about [-1, 1] to integers of 2**-32, ``[...] -> [...]`` int64; NaN and infinity become 0."""
    return (values.double() * _SCALE).round().nan_to_num(0, 0, 0).long()


def from_fixed_point(total: Tensor) -> Tensor:
    """Converts integers of 2**-32 to float64, ``[...] -> [...]``."""
    return total.double() / _SCALE


def count_non_finite(*rows: Tensor) -> Tensor:
    """Counts rows with a NaN or an infinity in any of the given tensors ``[B, ...]``, a scalar int64."""
    broken = torch.stack([~tensor.flatten(1).isfinite().all(1) for tensor in rows])  # [tensors, B]
    return broken.any(0).sum()
