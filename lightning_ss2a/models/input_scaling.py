"""The scale that embeddings enter a network with."""

import torch.nn.functional as F
from torch import Tensor


def unit_variance(embeddings: Tensor) -> Tensor:
    """L2-normalised, then times the root of their width, ``[..., D]``: a coordinate's mean square is 1.

    Embeddings of CLIP and CLAP are unit vectors, whose coordinates (about 1 / sqrt(D)) a network without normalisation
    hardly sees. Zero rows stay zero.
    """
    return F.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5
