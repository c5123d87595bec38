"""Compares boxes, and drops those that cover what a surer one covers."""

import torch
from torch import Tensor


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """Computes the shared part of the area that each two boxes cover together: [first, second], in [0, 1].

    Args:
        first: [first, 4], left, top, right and bottom.
        second: [second, 4].
    """
    corner = torch.maximum(first[:, None, :2], second[None, :, :2])
    opposite = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (opposite - corner).clamp(min=0).prod(dim=-1)
    together = _areas(first)[:, None] + _areas(second)[None] - shared
    return torch.where(together > 0, shared / together, 0)


def suppress(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Picks boxes that do not cover the same thing as a surer one (non-maximum suppression), whatever their labels.

    Args:
        boxes: [boxes, 4].
        scores: [boxes].
        overlap: intersection over union above which two boxes cover the same.

    Returns:
        numbers of those picked, the surest first; of equally sure ones, the earlier.
    """
    order = scores.argsort(descending=True, stable=True)
    covers = intersection_over_union(boxes[order], boxes[order]) > overlap
    dropped = torch.zeros(len(order), dtype=torch.bool)
    for i in range(len(order)):
        if not dropped[i]:
            dropped[i + 1 :] |= covers[i, i + 1 :]
    return order[~dropped]


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1)
