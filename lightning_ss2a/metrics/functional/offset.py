"""Synchronisation: how many seconds is a sound off its video, by a classifier of offsets such as Synchformer?"""

from typing import Literal

import torch
from torch import Tensor

OFFSETS = tuple(step / 5 for step in range(-10, 11))
"""Seconds of Synchformer's classes, -2 to 2."""

WINDOW = 14
"""Segments that Synchformer compares at a time."""


def weighted_absolute_offsets(
    logits: Tensor, top_k: int = 5, offsets: tuple[float, ...] = OFFSETS, normalize: bool = True
) -> Tensor:
    r"""Computes the absolute offset of each item, weighted by the probabilities of its ``top_k`` likeliest classes.

    .. math:: \frac{\sum_{j \in \mathrm{top}_k} p_{ij} |o_j|}{\sum_{j \in \mathrm{top}_k} p_{ij}}

    (Supplement 5.2: "weight and sum the top-k predictions with their confidence scores".) The paper states neither k
    nor whether the weights are made to sum to 1; without it (``normalize=False``) an unsure classifier seems
    synchronous.

    Args:
        logits: logits or log-probabilities of the classes, ``[B, K]``.
        top_k: classes that count, in 1..K; of equally likely ones the first. K: all.
        offsets: seconds of each class, K numbers.
        normalize: divide by the sum of the weights.

    Returns:
        Seconds, ``[B]`` float64, of at least 0. NaN where a row is not finite.

    Raises:
        ValueError: If the shape of ``logits`` is not that of ``offsets``, or ``top_k`` is out of range.
    """
    _check_classes(logits, 2, "[items, classes]", offsets)
    if not 1 <= top_k <= len(offsets):
        raise ValueError(f"top_k must be in 1..{len(offsets)}, the number of classes, got {top_k}")
    probabilities, classes = logits.double().softmax(1).sort(dim=1, descending=True, stable=True)
    weights = probabilities[:, :top_k]
    weighted = weights * _absolute(offsets, logits)[classes[:, :top_k]]
    return weighted.sum(1) / weights.sum(1) if normalize else weighted.sum(1)


def weighted_mean_absolute_offset(
    logits: Tensor,
    top_k: int = 5,
    offsets: tuple[float, ...] = OFFSETS,
    normalize: bool = True,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Computes the weighted mean absolute offset (WMAO) in seconds; see :func:`weighted_absolute_offsets`.

    Args:
        logits: logits or log-probabilities of the classes, ``[B, K]``.
        top_k: classes that count, in 1..K.
        offsets: seconds of each class, K numbers.
        normalize: divide each item's sum by that of its weights.
        reduction: ``mean`` over items, or ``none``.

    Returns:
        Seconds, float32: a scalar (NaN where there is no item), or ``[B]`` with ``none``.

    Raises:
        ValueError: If the shape of ``logits`` is not that of ``offsets``, or an option is out of range.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import weighted_mean_absolute_offset
        >>> logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
        >>> weighted_mean_absolute_offset(logits, top_k=2, offsets=(-1.0, 0.0, 1.0))  # 0.6 / 0.9
        tensor(0.6667)
    """
    return _reduce(weighted_absolute_offsets(logits, top_k, offsets, normalize), reduction)


def likeliest_absolute_offsets(logits: Tensor, offsets: tuple[float, ...] = OFFSETS) -> Tensor:
    """Computes the absolute offset of the likeliest class, mean over an item's windows, ``[B, W, K] -> [B]`` float64.

    Of equally likely classes the first counts. NaN where a row is not finite.

    Raises:
        ValueError: If the shape of ``logits`` is not that of ``offsets``, or there is no window.
    """
    _check_classes(logits, 3, "[items, windows, classes]", offsets)
    if logits.shape[1] == 0:
        raise ValueError("logits must hold at least one window an item")
    seconds = _absolute(offsets, logits)[logits.argmax(2)].mean(1)
    return seconds.masked_fill(~logits.isfinite().all(2).all(1), torch.nan)


def desynchronization(
    logits: Tensor, offsets: tuple[float, ...] = OFFSETS, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    """Computes av-benchmark's DeSync in seconds: the absolute offset of the likeliest class, mean over windows.

    Its windows are the first and the last 14 segments of a clip: see :func:`first_and_last`.

    Args:
        logits: logits of the classes in each window, ``[B, W, K]``, W at least 1; of equally likely ones the first
            counts.
        offsets: seconds of each class, K numbers.
        reduction: ``mean`` over items, or ``none``.

    Returns:
        Seconds, float32: a scalar (NaN where there is no item), or ``[B]`` with ``none``.

    Raises:
        ValueError: If the shape of ``logits`` is not that of ``offsets``, or an option is out of range.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import desynchronization
        >>> logits = torch.tensor([[[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]])
        >>> desynchronization(logits, offsets=(-1.0, 0.0, 1.0))
        tensor(0.5000)
    """
    return _reduce(likeliest_absolute_offsets(logits, offsets), reduction)


def first_and_last(segments: Tensor, window: int = WINDOW) -> Tensor:
    """Cuts the windows of DeSync, the first and the last segments, ``[B, S, ...] -> [B, 2, window, ...]``.

    Raises:
        ValueError: If there are fewer segments than a window has.
    """
    if not 1 <= window <= segments.shape[1]:
        raise ValueError(f"a window has {window} segments, got {segments.shape[1]}: the clip is too short")
    return torch.stack([segments[:, :window], segments[:, -window:]], dim=1)


def _absolute(offsets: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(offsets, dtype=torch.float64, device=like.device).abs()


def _check_classes(logits: Tensor, dimensions: int, shape: str, offsets: tuple[float, ...]) -> None:
    if logits.ndim != dimensions or logits.shape[-1] != len(offsets):
        raise ValueError(
            f"logits must be {shape} with one class for each of {len(offsets)} offsets, got {tuple(logits.shape)}"
        )


def _reduce(seconds: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    return (seconds.mean() if reduction == "mean" else seconds).float()
