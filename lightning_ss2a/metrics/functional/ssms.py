"""Sound source matching score (SSMS): do the predicted and the true audio carry the same labels?"""

from typing import Literal

import torch
from torch import Tensor

SSMS_SCALE = 10


def matching_labels(predicted_scores: Tensor, target_scores: Tensor, top_n: int = 10) -> Tensor:
    """Counts the labels that the ``top_n`` highest scores of both sides share, ``[B, L], [B, L] -> [B]`` int64.

    Equal scores are ranked by label number, so that the result is the same on every device.

    Args:
        predicted_scores: label scores of the predicted audio, ``[B, L]``, any monotone scale.
        target_scores: label scores of the true audio, ``[B, L]``.
        top_n: labels a side, in 1..L.

    Raises:
        ValueError: If the shapes differ, are not two-dimensional, or ``top_n`` is out of range.
    """
    if predicted_scores.ndim != 2 or predicted_scores.shape != target_scores.shape:
        raise ValueError(
            "predicted_scores and target_scores must have one shape [rows, labels], "
            f"got {tuple(predicted_scores.shape)} and {tuple(target_scores.shape)}"
        )
    labels = predicted_scores.shape[1]
    if not 1 <= top_n <= labels:
        raise ValueError(f"top_n must be in 1..{labels}, the number of labels, got {top_n}")
    chosen = torch.zeros(predicted_scores.shape, dtype=torch.int64, device=predicted_scores.device)
    for scores in (predicted_scores, target_scores):
        top = scores.sort(dim=1, descending=True, stable=True).indices[:, :top_n]  # [B, top_n]
        chosen.scatter_add_(1, top, torch.ones_like(top))
    return (chosen == 2).sum(1)


def sound_source_matching_score(
    predicted_scores: Tensor,
    target_scores: Tensor,
    top_n: int = 10,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    r"""Computes the F1 between the top-N labels of predicted and true audio, times 10.

    .. math:: \frac{10}{N_{rows}} \sum_i F_1\left(\mathrm{top}_N(\hat{s}_i), \mathrm{top}_N(s_i)\right)

    With N labels on both sides precision, recall and F1 are the shared part of the labels. Equal scores are ranked by
    label number.

    Args:
        predicted_scores: label scores of the predicted audio, ``[B, L]``, any monotone scale.
        target_scores: label scores of the true audio, ``[B, L]``.
        top_n: labels a side, in 1..L; the paper takes 10.
        reduction: ``mean`` over rows, or ``none``.

    Returns:
        The score in [0, 10], float32: a scalar (NaN where there is no row), or ``[B]`` with ``none``. A row with NaN
        or infinite scores scores NaN.

    Raises:
        ValueError: If the shapes differ, are not two-dimensional, or an option is out of range.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import sound_source_matching_score
        >>> predicted = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.0, 0.1, 0.8, 0.9]])
        >>> target = torch.tensor([[0.9, 0.1, 0.8, 0.0], [0.0, 0.1, 0.9, 0.8]])
        >>> sound_source_matching_score(predicted, target, top_n=2, reduction="none")
        tensor([ 5., 10.])
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    score = matching_labels(predicted_scores, target_scores, top_n).double() * SSMS_SCALE / top_n
    finite = predicted_scores.isfinite().all(1) & target_scores.isfinite().all(1)
    score = score.masked_fill(~finite, torch.nan)
    return (score.mean() if reduction == "mean" else score).float()
