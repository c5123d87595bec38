"""Mean and covariance of rows that come in parts: each part by its own mean, then merged."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_NUMBERS = 2**23
"""That are held at once of many groups' sums: 64 MB."""


class Moments(NamedTuple):
    """What a set of rows has in common with any other of the same mean and covariance.

    Attributes:
        size: rows, a scalar int64.
        mean: their mean, ``[D]`` float64.
        scatter: sum of the outer products of their deviations from it, ``[D, D]`` float64; over size - 1 it is the
            covariance.
    """

    size: Tensor
    mean: Tensor
    scatter: Tensor


def moments_of(rows: Tensor) -> Moments:
    """Computes the moments of rows ``[N, D]``, N at least 1."""
    rows = rows.double()
    mean = rows.mean(0)
    centred = rows - mean
    return Moments(torch.tensor(len(rows), device=rows.device), mean, centred.T @ centred)


def merge_moments(parts: Sequence[Moments]) -> Moments:
    r"""Merges the moments of disjoint sets of rows, at least one.

    .. math:: S = S_a + S_b + \frac{n_a n_b}{n_a + n_b} (m_b - m_a)(m_b - m_a)^\top

    (Chan, Golub and LeVeque 1979). Sums of squares from which the squared mean is taken in the end would lose the
    digits that a large mean shares with its rows.
    """
    merged = parts[0]
    for part in parts[1:]:
        size = merged.size + part.size
        step = part.mean - merged.mean
        weight = merged.size.double() * part.size.double() / size.double()
        scatter = merged.scatter + part.scatter + weight * torch.outer(step, step)
        merged = Moments(size, merged.mean + step * (part.size / size), scatter)
    return merged


def moments_of_draws(rows: Tensor, owners: Tensor, counts: Tensor) -> Iterator[Moments]:
    """Computes the moments of groups of rows that are drawn several times over, each group with all its rows.

    The outer products of a group's rows are summed once for all draws, so that a draw costs one product of its counts
    and these sums, however many rows a group has.

    Args:
        rows: ``[N, D]``; those of groups that are never drawn hold anything.
        owners: the group of each, ``[N]`` int64, ascending.
        counts: how often each group is drawn, ``[draws, groups]`` int64, none below 0.

    Yields:
        the moments of each draw; of one without rows the mean and the scatter are NaN.
    """
    known = (counts > 0).any(0)[owners]
    rows, owners = rows[known].double(), owners[known]
    centre = rows.mean(0)  # sums of squares keep their digits
    groups = (rows - centre).split(torch.bincount(owners, minlength=counts.shape[1]).tolist())
    lengths = torch.tensor([len(group) for group in groups], device=rows.device)
    sums = torch.stack([group.sum(0) for group in groups])
    width = rows.shape[1]
    at_once = max(1, _NUMBERS // max(1, width**2))
    for part in counts.split(at_once):
        weights, sizes = part.double(), part @ lengths
        squares = torch.zeros(len(part), width**2, dtype=torch.float64, device=rows.device)
        for start in range(0, len(groups), at_once):
            outer = torch.stack([(group.T @ group).flatten() for group in groups[start : start + at_once]])
            squares += weights[:, start : start + at_once] @ outer
        for size, total, square in zip(sizes, weights @ sums, squares, strict=True):
            mean = total / size
            yield Moments(size, centre + mean, square.view(width, width) - size * torch.outer(mean, mean))


def in_content_order(rows: Tensor) -> Tensor:
    """Sorts rows ``[N, D]`` by what they hold, column by column, so that their order of arrival is forgotten."""
    if len(rows) == 0:
        return rows
    distinct, counts = torch.unique(rows, dim=0, return_counts=True)
    return distinct.repeat_interleave(counts, dim=0)
