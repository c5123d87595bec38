"""Embeddings as networks read them: their scale, their mean direction, and checks of sizes."""

import torch.nn.functional as F
from torch import Tensor


def check_sizes(**sizes: int) -> None:
    """Raises ValueError if a size, given by its argument's name, is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def unit_variance(embeddings: Tensor) -> Tensor:
    """Scales embeddings to a norm of the root of their width, ``[..., D]``: a coordinate's mean square is 1.

    Embeddings of CLIP and CLAP are unit vectors, whose coordinates (about 1 / sqrt(D)) a network without normalisation
    hardly sees. Zero rows stay zero.
    """
    return F.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5


def mean_direction(embeddings: Tensor, valid: Tensor) -> Tensor:
    """Averages the unit vectors of valid embeddings, [B, S, W], bool [B, S] -> [B, W]; 0 where there is none."""
    directions = F.normalize(embeddings, dim=-1).masked_fill(~valid.unsqueeze(-1), 0)
    return directions.sum(1) / valid.sum(1, keepdim=True).clamp_min(1)
