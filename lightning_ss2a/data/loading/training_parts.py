"""Divides training rows for cross-validation: nothing that is alike comes to lie in two parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_ss2a.data.loading.in_memory import number_groups


@dataclass(frozen=True)
class SplitRows:
    """A split that is trained on.

    Attributes:
        dataset: number of its data set.
        fold: number of its fold among those trained on, or of the fold that it lies beside.
        is_measured: False for the splits of ``train_with``, on which nothing is measured.
        rows: their number.
    """

    dataset: int
    fold: int
    is_measured: bool
    rows: int


@dataclass(frozen=True)
class TrainingParts:
    """How training rows are divided, drawn and measured; each array [rows], by row number.

    Attributes:
        part: part of each row, int64 from 0.
        weight: times a row is drawn an epoch, on average, float64.
        is_measured: whether it is measured when its part is left out: of rows of a group drawn together the first.
    """

    part: np.ndarray
    weight: np.ndarray
    is_measured: np.ndarray

    @property
    def number(self) -> int:
        """Parts that there are."""
        return int(self.part.max(initial=-1)) + 1


def training_parts(
    group: np.ndarray, splits: Sequence[SplitRows], weights: Sequence[float], by_group: bool, most: int
) -> TrainingParts:
    """Divides rows by fold, or, where fewer than two folds are trained on, deals groups to parts in turn.

    Args:
        group: group of each row in its data set, int64 [rows].
        splits: the rows' splits, in their order.
        weights: times a row, or a group, of each data set is drawn an epoch.
        by_group: groups are drawn, and of each one row; the first is measured.
        most: parts, at most, where groups are dealt.
    """
    sizes = [split.rows for split in splits]
    dataset, fold, measured = (
        np.repeat([getattr(split, name) for split in splits], sizes) for name in ("dataset", "fold", "is_measured")
    )
    number = number_groups(np.unique(np.stack([dataset, group]), axis=1, return_inverse=True)[1].reshape(-1))
    part = fold if len(np.unique(fold)) > 1 else number % most
    weight = np.asarray(weights, np.float64)[dataset]
    if by_group:
        weight = weight / np.bincount(number)[number]
        first = np.unique(np.where(measured, number, -1), return_index=True)[1]
        measured = measured & np.isin(np.arange(len(group)), first)
    return TrainingParts(part.astype(np.int64), weight, measured.astype(bool))
