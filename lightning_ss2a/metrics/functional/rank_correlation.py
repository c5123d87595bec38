"""Rank correlation, and the similarity of classes that it is taken of."""

import numpy as np
import torch
from torch import Tensor


def ranks(x: np.ndarray) -> np.ndarray:
    """Rank of each value, from 1, ``[n] -> [n]``; ties share their mean rank."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's: Pearson's correlation of the ranks; x and y ``[n]``.

    Raises:
        ValueError: If the shapes differ or there are fewer than two values.
    """
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"x and y need one shape [n] with n of at least 2, got {x.shape} and {y.shape}")
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def class_sums(x: Tensor, class_index: Tensor, num_classes: int) -> Tensor:
    """Sum of the unit vectors of each class, ``[rows, width]`` and ``[rows]`` to float64 ``[num_classes, width]``."""
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    return unit.new_zeros(num_classes, x.shape[1]).index_add_(0, class_index.long(), unit)


def class_linkage(x_sums: Tensor, y_sums: Tensor, counts: Tensor) -> np.ndarray:
    """Average linkage: mean cosine of a row of x and a row of y, for each two classes, float64 ``[classes, classes]``.

    Args:
        x_sums: sums of unit vectors, see :func:`class_sums`, ``[classes, width]``.
        y_sums: likewise.
        counts: rows of each class, ``[classes]``; without one a class has NaN.
    """
    x_means, y_means = (sums / counts.unsqueeze(1) for sums in (x_sums, y_sums))
    return (x_means @ y_means.T).cpu().numpy()
