"""The mean of unit vectors, some of which may be missing."""

import torch.nn.functional as F
from torch import Tensor


def mean_direction(embeddings: Tensor, valid: Tensor) -> Tensor:
    """Mean of the unit vectors of the valid embeddings, [B, S, W], bool [B, S] -> [B, W]; 0 where there is none."""
    directions = F.normalize(embeddings, dim=-1).masked_fill(~valid.unsqueeze(-1), 0)
    return directions.sum(1) / valid.sum(1, keepdim=True).clamp_min(1)
