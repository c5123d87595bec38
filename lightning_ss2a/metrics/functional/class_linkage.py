"""Similarity of classes: the mean cosine of their members (average linkage)."""

import numpy as np
import torch
from torch import Tensor


def class_sums(x: Tensor, class_index: Tensor, num_classes: int) -> Tensor:
    """Sums the unit vectors of each class, ``[rows, width]`` and ``[rows]`` to float64 ``[num_classes, width]``."""
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    return unit.new_zeros(num_classes, x.shape[1]).index_add_(0, class_index.long(), unit)


def class_linkage(x_sums: Tensor, y_sums: Tensor, counts: Tensor) -> np.ndarray:
    """Computes the mean cosine of a row of x and a row of y for each two classes, float64 ``[classes, classes]``.

    Args:
        x_sums: sums of unit vectors, see :func:`class_sums`, ``[classes, width]``.
        y_sums: likewise.
        counts: rows of each class, ``[classes]``; without one a class has NaN.
    """
    x_means, y_means = (sums / counts.unsqueeze(1) for sums in (x_sums, y_sums))
    return (x_means @ y_means.T).cpu().numpy()
