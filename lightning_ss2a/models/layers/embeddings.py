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


def mean_direction(embeddings: Tensor, weights: Tensor) -> Tensor:
    """Averages the unit vectors of embeddings, ``[B, S, W] -> [B, W]``; 0 where there is none.

    Args:
        embeddings: those without a weight may hold anything.
        weights: at least 0, ``[B, S]``; bool: all that are valid count alike.
    """
    total = weights.sum(1, keepdim=True)
    return _weighted(embeddings, weights).sum(1) / total.masked_fill(total == 0, 1)


def weighted_directions(embeddings: Tensor, weights: Tensor) -> Tensor:
    """Scales unit vectors of embeddings so that their sum is their mean, ``[B, S, W]``; takes what the mean does."""
    total = weights.sum(1, keepdim=True)
    return _weighted(embeddings, weights) / total.masked_fill(total == 0, 1).unsqueeze(-1)


def _weighted(embeddings: Tensor, weights: Tensor) -> Tensor:
    weights = weights.unsqueeze(-1)
    return F.normalize(embeddings, dim=-1).masked_fill(weights == 0, 0) * weights
