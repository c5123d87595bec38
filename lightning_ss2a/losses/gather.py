"""Gathering of rows of all ranks, for losses over the global batch."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Counts the ranks, 1 where torch.distributed does not run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.compiler.disable  # a collective into a buffer is no work for a compiler
def gather_rows(rows: Tensor) -> Tensor:
    """Gathers rows of all ranks in rank order, without gradient, ``[world * B, D]``."""
    gathered = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, rows.contiguous())
    return gathered


@torch.compiler.disable  # a collective into a buffer is no work for a compiler
def gather_with_gradient(rows: Tensor) -> Tensor:
    """Gathers rows of all ranks in rank order, with gradient: each rank gets the sum of all ranks' gradients back.

    Args:
        rows: this rank's rows, ``[B, D]``, the same shape on every rank.

    Returns:
        ``[world * B, D]``; the rows themselves where torch.distributed does not run or runs alone.
    """
    return _GatherWithGradient.apply(rows) if world_size() > 1 else rows


class _GatherWithGradient(torch.autograd.Function):
    """All-gather whose backward is the reduce-scatter that belongs to it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return gather_rows(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty(len(gradient) // world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own
