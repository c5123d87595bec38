"""Cross-modal retrieval: the rank of the matching row among all rows."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ss2a.metrics.functional.exact_sum import FRACTION_BITS

_MATRIX_ELEMENTS = 2**22  # similarities held at a time: 32 MiB of float64


def retrieval_ranks(queries: Tensor, gallery: Tensor) -> Tensor:
    """Ranks each query's matching row in the gallery by cosine, 1 is best.

    Row i of the gallery matches query i. Ties count half (mid-rank), so that a constant similarity gets the chance
    rank (N + 1) / 2. Cosines are compared in steps of 2**-32, so that ties survive rounding. Rows are taken in chunks:
    memory stays bounded for any N.

    Args:
        queries: embeddings, ``[N, D]``, any norm.
        gallery: embeddings, ``[N, D]``, any norm.

    Returns:
        Ranks in [1, N] in steps of a half, ``[N]`` float64; NaN where a query or its match is not finite.

    Raises:
        ValueError: If the shapes differ or are not two-dimensional.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import retrieval_ranks
        >>> retrieval_ranks(torch.eye(3), torch.eye(3)[[0, 2, 1]])
        tensor([1.0000, 2.5000, 2.5000], dtype=torch.float64)
    """
    if queries.ndim != 2 or queries.shape != gallery.shape:
        raise ValueError(
            f"queries and gallery must have one shape [rows, width], got {tuple(queries.shape)} and "
            f"{tuple(gallery.shape)}"
        )
    queries, gallery = F.normalize(queries.double(), dim=1), F.normalize(gallery.double(), dim=1)
    count = len(gallery)
    ranks = queries.new_empty(count)
    rows = max(1, _MATRIX_ELEMENTS // max(1, count))
    for start in range(0, count, rows):
        similarity = (queries[start : start + rows] @ gallery.T).mul_(2.0**FRACTION_BITS).round_()  # [C, N]
        match = similarity.diagonal(start).unsqueeze(1)  # [C, 1]
        better, equal = (similarity > match).sum(1), (similarity == match).sum(1)  # [C], equal counts the match itself
        rank = 1 + better + (equal - 1) / 2
        ranks[start : start + rows] = rank.double().masked_fill(match.squeeze(1).isnan(), torch.nan)
    return ranks


def retrieval_recall(ranks: Tensor, k: int) -> Tensor:
    """Computes the part of the queries whose match is among the first ``k``.

    Args:
        ranks: ranks from 1, ``[N]``; a tied rank counts as it stands, NaN as a miss.
        k: places that count, at least 1.

    Returns:
        Recall in [0, 1], a float32 scalar; NaN where there is no query.

    Raises:
        ValueError: If ``k`` is below 1.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import retrieval_recall
        >>> retrieval_recall(torch.tensor([1.0, 2.0, 7.0, 1.0]), k=1)
        tensor(0.5000)
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return (ranks <= k).double().mean().float()


def median_rank(ranks: Tensor) -> Tensor:
    """Computes the median rank, the mean of the middle two for an even number.

    Args:
        ranks: ranks from 1, ``[N]``.

    Returns:
        The median, a float32 scalar of at least 1; NaN where there is no query or a rank is NaN.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import median_rank
        >>> median_rank(torch.tensor([1.0, 2.0, 7.0, 1.0]))
        tensor(1.5000)
    """
    if len(ranks) == 0 or ranks.isnan().any():
        return ranks.new_full((), torch.nan).float()
    ordered = ranks.double().sort().values
    middle = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]]
    return middle.mean().float()
