"""Sound source matching score (SSMS) as a metric."""

from typing import Any

import torch
from torch import Tensor

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.exact_sum import count_non_finite
from lightning_ss2a.metrics.functional.ssms import SSMS_SCALE, matching_labels


class SoundSourceMatchingScore(ExactMetric):
    r"""Sound source matching score: F1 between the top-N labels of predicted and true audio, times 10.

    .. math:: \frac{10}{N_{rows}} \sum_i F_1\left(\mathrm{top}_N(\hat{s}_i), \mathrm{top}_N(s_i)\right)

    As input to ``update``:

    - ``predicted_scores``: label scores of the predicted audio, ``[B, L]``; B may be 0.
    - ``target_scores``: label scores of the true audio, ``[B, L]``.
    - ``class_index``: class of each row, ``[B]`` int64; needed and used where ``num_classes`` is given.

    As output of ``compute``: the mean over rows, a float32 scalar in [0, 10], the same bits for any split into batches
    and ranks; NaN where there is no row, or where a score is NaN or infinite.

    Args:
        top_n: labels a side, at least 1; the paper takes 10.
        num_classes: number of classes, for the scores by class; ``None``: no breakdown.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an option is out of range, the shapes of an update differ, ``class_index`` is missing or holds a
            class that is not in 0..num_classes - 1.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import SoundSourceMatchingScore
        >>> metric = SoundSourceMatchingScore(top_n=2, num_classes=3)
        >>> predicted = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.0, 0.1, 0.8, 0.9]])
        >>> target = torch.tensor([[0.9, 0.1, 0.8, 0.0], [0.0, 0.1, 0.9, 0.8]])
        >>> metric.update(predicted, target, class_index=torch.tensor([0, 2]))
        >>> metric.compute(), metric.per_class()
        (tensor(7.5000), tensor([ 5., nan, 10.]))
    """

    higher_is_better = True

    matches: Tensor
    rows: Tensor
    broken_rows: Tensor

    def __init__(self, top_n: int = 10, num_classes: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("top_n", top_n), ("num_classes", num_classes)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.top_n = top_n
        self.num_classes = num_classes
        for name in ("matches", "rows"):
            self.add_state(name, torch.zeros(num_classes or 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("broken_rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted_scores: Tensor, target_scores: Tensor, class_index: Tensor | None = None) -> None:
        """Adds rows: scores ``[B, L]`` each, classes ``[B]``."""
        matches = matching_labels(predicted_scores, target_scores, self.top_n)
        group = torch.zeros_like(matches)
        if self.num_classes is not None:
            group = _checked_classes(class_index, len(matches), self.num_classes)
        self.matches.index_add_(0, group, matches)
        self.rows.index_add_(0, group, torch.ones_like(matches))
        self.broken_rows += count_non_finite(predicted_scores, target_scores)

    def compute(self) -> Tensor:
        """Computes the mean over all rows of all ranks."""
        return self._score(self.matches.sum(), self.rows.sum())

    def per_class(self) -> Tensor:
        """Computes the mean over the rows of each class, ``[num_classes]`` float32, NaN where a class is absent.

        Every rank must call it, since it collects the rows of all.

        Raises:
            ValueError: If the metric was made without ``num_classes``.
        """
        if self.num_classes is None:
            raise ValueError("per_class needs num_classes: pass it when making the metric")
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return self._score(self.matches, self.rows)

    def _score(self, matches: Tensor, rows: Tensor) -> Tensor:
        score = SSMS_SCALE * matches.double() / (self.top_n * rows)
        return score.masked_fill(self.broken_rows > 0, torch.nan).float()


def _checked_classes(class_index: Tensor | None, rows: int, num_classes: int) -> Tensor:
    if class_index is None or class_index.shape != (rows,):
        found = "nothing" if class_index is None else tuple(class_index.shape)
        raise ValueError(f"num_classes is set, so class_index must be [{rows}] classes, got {found}")
    outside = class_index[(class_index < 0) | (class_index >= num_classes)]
    if len(outside):
        raise ValueError(f"class_index must be in 0..{num_classes - 1}, got {int(outside[0])}")
    return class_index.long()
