"""Mean and covariance of rows that come in parts: each part by its own mean, then merged."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


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


def in_content_order(rows: Tensor) -> Tensor:
    """Sorts rows ``[N, D]`` by what they hold, column by column, so that their order of arrival is forgotten."""
    if len(rows) == 0:
        return rows
    distinct, counts = torch.unique(rows, dim=0, return_counts=True)
    return distinct.repeat_interleave(counts, dim=0)
