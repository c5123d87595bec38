"""Sound source matching score (SSMS) as a metric."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.exact_sum import count_non_finite
from lightning_ss2a.metrics.functional.ssms import SSMS_SCALE, label_count, matching_labels


class SoundSourceMatchingScore(ExactMetric):
    r"""Sound source matching score: F1 between the top-N labels of predicted and true audio, times 10.

    .. math:: \frac{10}{N_{rows}} \sum_i F_1\left(\mathrm{top}_N(\hat{s}_i), \mathrm{top}_N(s_i)\right)

    As input to ``update``:

    - ``predicted_scores``: label scores of the predicted audio, ``[B, L]``; B may be 0.
    - ``target_scores``: label scores of the true audio, ``[B, L]``.
    - ``class_index``: class of each row, ``[B]`` int64; needed and used where ``num_classes`` is given.
    - ``source_count``: sources of each row, ``[B]`` int64 from 1; needed and used where ``most_sources`` is given.

    As output of ``compute``: the mean over rows, a float32 scalar in [0, 10], the same bits for any split into batches
    and ranks; NaN where there is no row, or where a score is NaN or infinite. ``precision``, ``recall``, ``per_class``
    and ``per_source_count`` compute what they say. Every rank must call them, since they collect the rows of all.

    Args:
        top_n: labels of the predicted audio, at least 1; the paper takes 10.
        num_classes: number of classes, for the scores by class; ``None``: no breakdown.
        most_sources: sources that the last group by number of sources has at least; ``None``: no breakdown.
        target_top_n: labels of the true audio, at least 1; ``None``: ``top_n``, as in the paper.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If an option is out of range, the shapes of an update differ, ``class_index`` or ``source_count`` is
            missing or out of range.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import SoundSourceMatchingScore
        >>> metric = SoundSourceMatchingScore(top_n=2, num_classes=3, most_sources=2)
        >>> predicted = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.0, 0.1, 0.8, 0.9]])
        >>> target = torch.tensor([[0.9, 0.1, 0.8, 0.0], [0.0, 0.1, 0.9, 0.8]])
        >>> metric.update(predicted, target, class_index=torch.tensor([0, 2]), source_count=torch.tensor([1, 4]))
        >>> metric.compute(), metric.per_class(), metric.per_source_count(), metric.precision()
        (tensor(7.5000), tensor([ 5., nan, 10.]), tensor([ 5., 10.]), tensor(0.7500))
    """

    higher_is_better = True

    matches: Tensor
    rows: Tensor
    source_matches: Tensor
    source_rows: Tensor
    broken_rows: Tensor

    def __init__(
        self,
        top_n: int = 10,
        num_classes: int | None = None,
        most_sources: int | None = None,
        target_top_n: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        options = {"num_classes": num_classes, "most_sources": most_sources, "target_top_n": target_top_n}
        for name, value in {"top_n": top_n, **options}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.top_n = top_n
        self.target_top_n = label_count(top_n, target_top_n)
        self.num_classes = num_classes
        self.most_sources = most_sources
        for prefix, groups in (("", num_classes), ("source_", most_sources)):
            for name in ("matches", "rows"):
                self.add_state(f"{prefix}{name}", torch.zeros(groups or 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("broken_rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        predicted_scores: Tensor,
        target_scores: Tensor,
        class_index: Tensor | None = None,
        source_count: Tensor | None = None,
    ) -> None:
        """Adds rows: scores ``[B, L]`` each, classes ``[B]``, numbers of sources ``[B]``."""
        matches = matching_labels(predicted_scores, target_scores, self.top_n, self.target_top_n)
        group, source_group = torch.zeros_like(matches), torch.zeros_like(matches)
        if self.num_classes is not None:
            group = _checked_groups("class_index", class_index, matches, "num_classes", 0, self.num_classes - 1)
        if self.most_sources is not None:
            counts = _checked_groups("source_count", source_count, matches, "most_sources", 1, None)
            source_group = counts.clamp(max=self.most_sources) - 1
        one = torch.ones_like(matches)
        self.matches.index_add_(0, group, matches)
        self.rows.index_add_(0, group, one)
        self.source_matches.index_add_(0, source_group, matches)
        self.source_rows.index_add_(0, source_group, one)
        self.broken_rows += count_non_finite(predicted_scores, target_scores)

    def compute(self) -> Tensor:
        """Computes the mean over all rows of all ranks."""
        return self._score(self.matches.sum(), self.rows.sum())

    def precision(self) -> Tensor:
        """Computes the mean part of the predicted labels that are true, a float32 scalar in [0, 1]."""
        with self._all_ranks():
            return self._mean(self.matches.sum(), self.rows.sum() * self.top_n)

    def recall(self) -> Tensor:
        """Computes the mean part of the true labels that are predicted, a float32 scalar in [0, 1]."""
        with self._all_ranks():
            return self._mean(self.matches.sum(), self.rows.sum() * self.target_top_n)

    def per_class(self) -> Tensor:
        """Computes the mean over the rows of each class, ``[num_classes]`` float32, NaN where a class is absent.

        Raises:
            ValueError: If the metric was made without ``num_classes``.
        """
        if self.num_classes is None:
            raise ValueError("per_class needs num_classes: pass it when making the metric")
        with self._all_ranks():
            return self._score(self.matches, self.rows)

    def per_source_count(self) -> Tensor:
        """Computes the mean over rows of 1, 2, ..., ``most_sources`` or more sources, ``[most_sources]`` float32.

        NaN where there is no such row.

        Raises:
            ValueError: If the metric was made without ``most_sources``.
        """
        if self.most_sources is None:
            raise ValueError("per_source_count needs most_sources: pass it when making the metric")
        with self._all_ranks():
            return self._score(self.source_matches, self.source_rows)

    def _all_ranks(self) -> AbstractContextManager[None]:
        return self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        )

    def _score(self, matches: Tensor, rows: Tensor) -> Tensor:
        return self._mean(2 * SSMS_SCALE * matches, rows * (self.top_n + self.target_top_n))

    def _mean(self, total: Tensor, count: Tensor) -> Tensor:
        return (total.double() / count).masked_fill(self.broken_rows > 0, torch.nan).float()


def _checked_groups(
    name: str, group: Tensor | None, matches: Tensor, option: str, least: int, most: int | None
) -> Tensor:
    """Returns the group of each row as int64; raises ValueError for a missing one and one outside least..most."""
    if group is None or group.shape != matches.shape:
        found = "nothing" if group is None else tuple(group.shape)
        words = {"class_index": "classes", "source_count": "numbers of sources"}[name]
        raise ValueError(f"{option} is set, so {name} must be [{len(matches)}] {words}, got {found}")
    outside = group[(group < least) | (group > most)] if most is not None else group[group < least]
    if len(outside):
        span = f"in {least}..{most}" if most is not None else f"at least {least}"
        raise ValueError(f"{name} must be {span}, got {int(outside[0])}")
    return group.long()
