"""Cosine between predicted and true embeddings."""

import torch.nn.functional as F
from torch import Tensor


def row_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Computes the cosine of each row, ``[B, D], [B, D] -> [B]`` in float64; a zero row has cosine 0.

    Args:
        prediction: embeddings, ``[B, D]``, any norm.
        target: embeddings, ``[B, D]``, any norm.

    Raises:
        ValueError: If the shapes differ or are not two-dimensional.
    """
    if prediction.ndim != 2 or prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have one shape [rows, width], "
            f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    return (F.normalize(prediction.double(), dim=1) * F.normalize(target.double(), dim=1)).sum(1)


def mean_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Computes the mean cosine between predicted and true embeddings, such as the reconstruction cosine.

    .. math:: \frac{1}{N} \sum_i \cos(p_i, t_i)

    Args:
        prediction: embeddings, ``[B, D]``, any norm.
        target: embeddings, ``[B, D]``, any norm.

    Returns:
        The mean, a float32 scalar in [-1, 1]; NaN where there is no row.

    Raises:
        ValueError: If the shapes differ or are not two-dimensional.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import mean_cosine
        >>> mean_cosine(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        tensor(0.5000)
    """
    return row_cosine(prediction, target).mean().float()
