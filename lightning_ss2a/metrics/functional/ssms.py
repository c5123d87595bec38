"""Sound source matching score (SSMS): do the predicted and the true audio carry the same labels?"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

SSMS_SCALE = 10


class LabelAgreement(NamedTuple):
    """How far the labels of predicted and true audio agree, row by row; NaN where a score is not finite.

    Attributes:
        precision: part of the predicted labels that are true, ``[B]`` float32 in [0, 1].
        recall: part of the true labels that are predicted, ``[B]`` float32 in [0, 1].
        f1: their harmonic mean, ``[B]`` float32 in [0, 1]; the matching score is 10 times this.
    """

    precision: Tensor
    recall: Tensor
    f1: Tensor


def matching_labels(
    predicted_scores: Tensor, target_scores: Tensor, top_n: int = 10, target_top_n: int | None = None
) -> Tensor:
    """Counts the labels that the highest scores of both sides share, ``[B, L], [B, L] -> [B]`` int64.

    Equal scores are ranked by label number, so that the result is the same on every device.

    Args:
        predicted_scores: label scores of the predicted audio, ``[B, L]``, any monotone scale.
        target_scores: label scores of the true audio, ``[B, L]``.
        top_n: labels of the predicted audio, in 1..L.
        target_top_n: labels of the true audio, in 1..L; None: ``top_n``.

    Raises:
        ValueError: If the shapes differ, are not two-dimensional, or a number of labels is out of range.
    """
    if predicted_scores.ndim != 2 or predicted_scores.shape != target_scores.shape:
        raise ValueError(
            "predicted_scores and target_scores must have one shape [rows, labels], "
            f"got {tuple(predicted_scores.shape)} and {tuple(target_scores.shape)}"
        )
    labels = predicted_scores.shape[1]
    counts = {"top_n": top_n, "target_top_n": label_count(top_n, target_top_n)}
    for name, count in counts.items():
        if not 1 <= count <= labels:
            raise ValueError(f"{name} must be in 1..{labels}, the number of labels, got {count}")
    chosen = torch.zeros(predicted_scores.shape, dtype=torch.int64, device=predicted_scores.device)
    for scores, count in zip((predicted_scores, target_scores), counts.values(), strict=True):
        top = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]  # [B, count]
        chosen.scatter_add_(1, top, torch.ones_like(top))
    return (chosen == 2).sum(1)


def label_count(top_n: int, target_top_n: int | None) -> int:
    """Counts the labels of the true audio: ``target_top_n``, and ``top_n`` where that is None."""
    return top_n if target_top_n is None else target_top_n


def label_agreement(
    predicted_scores: Tensor, target_scores: Tensor, top_n: int = 10, target_top_n: int | None = None
) -> LabelAgreement:
    """Computes precision, recall and F1 of the labels with the highest scores, row by row.

    All three are one number where both sides have the same number of labels. Since those numbers are the same for every
    row, the mean of F1 over rows is also F1 of the means of precision and recall, which the paper's authors compute.

    Args:
        predicted_scores: label scores of the predicted audio, ``[B, L]``, any monotone scale.
        target_scores: label scores of the true audio, ``[B, L]``.
        top_n: labels of the predicted audio, in 1..L; the paper takes 10.
        target_top_n: labels of the true audio, in 1..L; None: ``top_n``.

    Raises:
        ValueError: If the shapes differ, are not two-dimensional, or a number of labels is out of range.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import label_agreement
        >>> predicted, target = torch.tensor([[0.9, 0.8, 0.1, 0.0]]), torch.tensor([[0.9, 0.1, 0.8, 0.7]])
        >>> label_agreement(predicted, target, top_n=2, target_top_n=3)
        LabelAgreement(precision=tensor([0.5000]), recall=tensor([0.3333]), f1=tensor([0.4000]))
    """
    matches = matching_labels(predicted_scores, target_scores, top_n, target_top_n).double()
    finite = predicted_scores.isfinite().all(1) & target_scores.isfinite().all(1)
    matches = matches.masked_fill(~finite, torch.nan)
    found, true = top_n, label_count(top_n, target_top_n)
    return LabelAgreement((matches / found).float(), (matches / true).float(), (2 * matches / (found + true)).float())


def sound_source_matching_score(
    predicted_scores: Tensor,
    target_scores: Tensor,
    top_n: int = 10,
    reduction: Literal["mean", "none"] = "mean",
    target_top_n: int | None = None,
) -> Tensor:
    r"""Computes the F1 between the top-N labels of predicted and true audio, times 10.

    .. math:: \frac{10}{N_{rows}} \sum_i F_1\left(\mathrm{top}_N(\hat{s}_i), \mathrm{top}_N(s_i)\right)

    With N labels on both sides precision, recall and F1 are the shared part of the labels; see
    :func:`label_agreement` for each. Equal scores are ranked by label number.

    Args:
        predicted_scores: label scores of the predicted audio, ``[B, L]``, any monotone scale.
        target_scores: label scores of the true audio, ``[B, L]``.
        top_n: labels of the predicted audio, in 1..L; the paper takes 10.
        reduction: ``mean`` over rows, or ``none``.
        target_top_n: labels of the true audio, in 1..L; None: ``top_n``, as in the paper.

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
    matches = matching_labels(predicted_scores, target_scores, top_n, target_top_n).double()
    score = SSMS_SCALE * 2 * matches / (top_n + label_count(top_n, target_top_n))
    finite = predicted_scores.isfinite().all(1) & target_scores.isfinite().all(1)
    score = score.masked_fill(~finite, torch.nan)
    return (score.mean() if reduction == "mean" else score).float()
