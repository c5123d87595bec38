"""Inception score as a metric."""

from typing import Any

import torch
from torch import Tensor

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.checks import check_rows
from lightning_ss2a.metrics.functional.exact_sum import from_fixed_point, to_fixed_point
from lightning_ss2a.metrics.functional.inception_score import checked_splits, class_distributions, split_scores
from lightning_ss2a.metrics.gather import gather_ragged


class InceptionScore(ExactMetric):
    r"""Inception score of generated sounds: exp of the mean divergence of each from the mean of all.

    .. math:: \exp\left(\frac{1}{N} \sum_i \mathrm{KL}(p_i \| \bar{p})\right)

    As input to ``update``:

    - ``logits``: class logits of each sound, ``[B, L]``; B may be 0.
    - ``split_index``: split of each sound in 0..splits - 1, ``[B]`` int64, needed where there are several;
      :func:`~lightning_ss2a.metrics.functional.shuffled_splits` gives those of av-benchmark for a whole set.

    As output of ``compute``: a dict of float32 scalars, ``mean`` in [1, L] and ``std`` (over splits, as a population),
    the same bits for any split into batches and ranks; NaN where a split has no sound. Only the sums of each split are
    kept. The score of a split grows with its size, so that only scores of as many sounds in as many splits compare.

    Args:
        splits: number of splits, at least 1.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the logits are not two-dimensional, or splits are missing or out of range.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import InceptionScore
        >>> metric = InceptionScore(splits=2)
        >>> metric.update(100 * torch.eye(4), split_index=torch.tensor([0, 0, 1, 1]))
        >>> metric.compute()
        {'mean': tensor(2.), 'std': tensor(0.)}
    """

    higher_is_better = True

    probabilities: list[Tensor]
    negative_entropy: Tensor
    count: Tensor

    def __init__(self, splits: int = 1, **kwargs: Any) -> None:
        super().__init__(**{"dist_sync_fn": gather_ragged, **kwargs})
        if splits < 1:
            raise ValueError(f"splits must be at least 1, got {splits}")
        self.splits = splits
        # One running sum [1, splits, L] in a list, since L is known at the first update only.
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        for name in ("negative_entropy", "count"):
            self.add_state(name, torch.zeros(splits, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, split_index: Tensor | None = None) -> None:
        """Adds sounds: logits ``[B, L]``, splits ``[B]``."""
        check_rows(logits=logits)
        split = checked_splits(split_index, len(logits), self.splits, logits.device)
        probabilities, negative_entropy = map(to_fixed_point, class_distributions(logits))
        total = probabilities.new_zeros(self.splits, logits.shape[1]).index_add_(0, split, probabilities)
        self.probabilities = [sum(self.probabilities, start=total.unsqueeze(0))]
        self.negative_entropy.index_add_(0, split, negative_entropy)
        self.count.index_add_(0, split, torch.ones_like(split))

    def compute(self) -> dict[str, Tensor]:
        """Computes the score over all sounds of all ranks."""
        if int(self.count.sum()) == 0:
            return dict.fromkeys(("mean", "std"), torch.full((), torch.nan, device=self.device))
        parts = self.probabilities if isinstance(self.probabilities, list) else [self.probabilities]
        probabilities = torch.cat(parts).sum(0)
        scores = split_scores(from_fixed_point(self.negative_entropy), from_fixed_point(probabilities), self.count)
        return {"mean": scores.mean().float(), "std": scores.std(correction=0).float()}
