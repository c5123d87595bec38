"""Synchronisation of sound and video as metrics: WMAO and DeSync."""

from typing import Any

import torch
from torch import Tensor

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.checks import check_rows
from lightning_ss2a.metrics.functional.exact_sum import from_fixed_point, to_fixed_point
from lightning_ss2a.metrics.functional.offset import OFFSETS, likeliest_absolute_offsets, weighted_absolute_offsets


class _MeanOffset(ExactMetric):
    """Mean over items of an offset in seconds, in units of the largest, which keeps the sum's steps small."""

    higher_is_better = False

    total: Tensor
    items: Tensor

    def __init__(self, offsets: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offsets = tuple(offsets)
        self.largest = max((abs(offset) for offset in self.offsets), default=0.0) or 1.0
        for name in ("total", "items"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, seconds: Tensor) -> None:
        self.total += to_fixed_point(seconds / self.largest).sum()
        self.items += len(seconds)

    def compute(self) -> Tensor:
        """Computes the mean over all items of all ranks."""
        return (self.largest * from_fixed_point(self.total) / self.items).float()


class WeightedMeanAbsoluteOffset(_MeanOffset):
    r"""Weighted mean absolute offset (WMAO) between sound and video, in seconds, from a classifier of offsets.

    .. math:: \frac{1}{N} \sum_i \frac{\sum_{j \in \mathrm{top}_k} p_{ij} |o_j|}{\sum_{j \in \mathrm{top}_k} p_{ij}}

    See :func:`~lightning_ss2a.metrics.functional.offset.weighted_absolute_offsets` for what the paper leaves open.

    As input to ``update``:

    - ``logits``: logits or log-probabilities of the offset classes, ``[B, K]``; B may be 0.

    As output of ``compute``: seconds, a float32 scalar of at least 0, the same bits for any split into batches and
    ranks; NaN where there is no item.

    Args:
        top_k: classes that count, in 1..K. The published value is unknown: state yours.
        offsets: seconds of each class; by default Synchformer's 21 from -2 to 2.
        normalize: divide each item's sum by that of its weights.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shape of ``logits`` is not that of ``offsets``, or ``top_k`` is out of range.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import WeightedMeanAbsoluteOffset
        >>> metric = WeightedMeanAbsoluteOffset(top_k=2, offsets=(-1.0, 0.0, 1.0))
        >>> metric.update(torch.tensor([[0.6, 0.3, 0.1]]).log())
        >>> metric.compute()
        tensor(0.6667)
    """

    def __init__(
        self, top_k: int = 5, offsets: tuple[float, ...] = OFFSETS, normalize: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(offsets, **kwargs)
        if not 1 <= top_k <= len(self.offsets):
            raise ValueError(f"top_k must be in 1..{len(self.offsets)}, the number of classes, got {top_k}")
        self.top_k = top_k
        self.normalize = normalize

    def update(self, logits: Tensor) -> None:
        """Adds items, ``[B, K]``."""
        check_rows(logits=logits)
        self._add(weighted_absolute_offsets(logits, self.top_k, self.offsets, self.normalize))


class Desynchronization(_MeanOffset):
    r"""DeSync of av-benchmark: the absolute offset of the likeliest class in seconds, mean over windows and items.

    Its windows are the first and the last 14 segments of a clip;
    :func:`~lightning_ss2a.metrics.functional.offset.first_and_last` cuts them.

    As input to ``update``:

    - ``logits``: logits of the offset classes in each window, ``[B, W, K]``; B may be 0.

    As output of ``compute``: seconds, a float32 scalar of at least 0, the same bits for any split into batches and
    ranks; NaN where there is no item.

    Args:
        offsets: seconds of each class; by default Synchformer's 21 from -2 to 2.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shape of ``logits`` is not that of ``offsets``.
        InputError: If an item holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import Desynchronization
        >>> metric = Desynchronization(offsets=(-1.0, 0.0, 1.0))
        >>> metric.update(torch.tensor([[[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def __init__(self, offsets: tuple[float, ...] = OFFSETS, **kwargs: Any) -> None:
        super().__init__(offsets, **kwargs)

    def update(self, logits: Tensor) -> None:
        """Adds items, ``[B, W, K]``."""
        seconds = likeliest_absolute_offsets(logits, self.offsets)
        check_rows(logits=logits.flatten(1))
        self._add(seconds)
