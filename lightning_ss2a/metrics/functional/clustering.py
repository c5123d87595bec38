"""Partition coefficient: do embeddings lie near the centroids of their classes?"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ss2a.metrics.functional.checks import check_groups, check_rows

VARIANTS = ("paper", "published")


def partition_coefficient(
    embedding: Tensor, class_index: Tensor, variant: Literal["paper", "published"] = "paper"
) -> Tensor:
    r"""Computes the partition coefficient of embeddings in known classes (Eq. 13).

    .. math:: \frac{1}{N} \sum_{i=1}^N \sum_{j=1}^M u_{ij}^2, \quad u_{ij} = \frac{1 + \cos(x_i, c_j)}{2}

    with c_j the mean of a class. The memberships of a row do not sum to 1, unlike those of the index that it is named
    after: it grows where embeddings lie near **all** centroids, and is M where all embeddings are one. Compare it among
    sets of the same classes only.

    Args:
        embedding: embeddings, ``[N, D]``, any norm. Centroids are their means as they are.
        class_index: class of each, ``[N]``, any integers from 0. Classes without rows do not count.
        variant: ``paper``: Eq. 13, over all centroids, in [0, M]. ``published``: what the authors' code computes, the
            mean square of each class' memberships in its **own** centroid, summed over the M classes, in [0, M].

    Returns:
        The coefficient, a float32 scalar; NaN where there is no row.

    Raises:
        ValueError: If the shapes do not fit, or an option is unknown.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import partition_coefficient
        >>> partition_coefficient(torch.eye(2), torch.tensor([0, 1]))  # 1² + (1/2)² of each
        tensor(1.2500)
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    check_rows(embedding=embedding)
    check_groups(len(embedding), class_index=class_index)
    if len(embedding) == 0:
        return torch.full((), torch.nan, device=embedding.device)
    rows = embedding.double()
    _, group, counts = torch.unique(class_index, return_inverse=True, return_counts=True)
    centroids = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, group, rows) / counts.unsqueeze(1)
    squares = ((1 + F.normalize(rows, dim=1) @ F.normalize(centroids, dim=1).T) / 2).square()  # [N, M]
    if variant == "paper":
        return squares.sum(1).mean().float()
    own = squares.gather(1, group.unsqueeze(1)).squeeze(1)
    return (own / counts[group]).sum().float()
