"""Modality gap: the distance between where visuals and audio lie on the unit sphere."""

import torch.nn.functional as F
from torch import Tensor


def unit_difference(visual_embedding: Tensor, audio_embedding: Tensor) -> Tensor:
    """Subtracts the L2-normalised rows, ``[B, D], [B, D] -> [B, D]`` in float64.

    Args:
        visual_embedding: embeddings of the visuals, ``[B, D]``, any norm.
        audio_embedding: embeddings of the audio, ``[B, D]``, any norm.

    Raises:
        ValueError: If the shapes differ or are not two-dimensional.
    """
    if visual_embedding.ndim != 2 or visual_embedding.shape != audio_embedding.shape:
        raise ValueError(
            "visual_embedding and audio_embedding must have one shape [rows, width], "
            f"got {tuple(visual_embedding.shape)} and {tuple(audio_embedding.shape)}"
        )
    return F.normalize(visual_embedding.double(), dim=1) - F.normalize(audio_embedding.double(), dim=1)


def modality_gap(visual_embedding: Tensor, audio_embedding: Tensor) -> Tensor:
    r"""Computes the distance between the means of the two modalities' unit vectors.

    .. math:: \left\| \frac{1}{N} \sum_i \frac{v_i}{\|v_i\|} - \frac{1}{N} \sum_i \frac{a_i}{\|a_i\|} \right\|

    Args:
        visual_embedding: embeddings of the visuals, ``[B, D]``, any norm.
        audio_embedding: embeddings of the matching audio, ``[B, D]``, any norm.

    Returns:
        The gap, a float32 scalar in [0, 2]; NaN where there is no row.

    Raises:
        ValueError: If the shapes differ or are not two-dimensional.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import modality_gap
        >>> modality_gap(torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]]))
        tensor(2.)
    """
    return unit_difference(visual_embedding, audio_embedding).mean(0).norm().float()
