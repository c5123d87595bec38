"""Gathering of metric states of different lengths from all ranks."""

import torch
import torch.distributed as dist
from torch import Tensor


def gather_ragged(rows: Tensor, group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """Gathers tensors of all ranks in rank order, where lengths differ and a rank may hold nothing at all.

    torchmetrics' own gathering hangs or fails where a rank has seen no batch, since its empty state has neither the
    width nor the dtype of the others'. Pass this function as ``dist_sync_fn``.

    Args:
        rows: this rank's tensor, ``[B, ...]`` or a scalar; shapes after the first dimension and dtypes must agree among
            ranks that hold any row.
        group: ranks to gather from, all by default.

    Returns:
        One tensor a rank.
    """
    world_size = dist.get_world_size(group)
    layouts: list[tuple[torch.Size, torch.dtype]] = [(rows.shape, rows.dtype)] * world_size
    dist.all_gather_object(layouts, (rows.shape, rows.dtype), group=group)
    shape, dtype = max(layouts, key=lambda layout: layout[0].numel())
    padded = torch.zeros(shape.numel(), dtype=dtype, device=rows.device)
    padded[: rows.numel()] = rows.flatten()
    gathered = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(gathered, padded, group=group)
    return [
        flat[: layout.numel()].reshape(layout if layout.numel() else (0, *shape[1:]))
        for flat, (layout, _) in zip(gathered, layouts, strict=True)
    ]
