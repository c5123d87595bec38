"""Measures how many items a measure needs to tell a better method from a worse one.

Items are drawn from a pool again and again. Of each draw it counts which method is ahead, and whether the 95 % interval
of their difference, as ``ss2a evaluate`` computes it, leaves 0 out.

Shapes: P items of the pool, D draws of them, N items of a draw, R draws of a draw for its interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.evaluation.measures import Drawn, SetMeasure
from lightning_ss2a.evaluation.scoring import draw_counts, interval

EVERYWHERE = (-np.inf, np.inf)


@dataclass(frozen=True)
class Power:
    """How well a measure tells a better method from a worse one.

    Attributes:
        ahead: part of the draws in which the better one is ahead, in 0 to 1; equal scores count one half.
        significant: part of the tested draws whose interval says so.
        reversed: part of them whose interval says that the worse one is better.
        draws: how many there were.
        tested: how many of them have an interval.
    """

    ahead: float
    significant: float
    reversed: float
    draws: int
    tested: int


def draw_items(pool: int, items: int, draws: int, seed: int) -> np.ndarray:
    """Draws items without replacement, anew each time: int64 [D, N], of ``pool`` items.

    Raises:
        ValueError: the pool has fewer items than a draw.
    """
    if items > pool:
        raise ValueError(f"{items} items cannot be drawn from a pool of {pool}")
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(pool)[:items] for _ in range(draws)])


def draw_exchanges(draws: int, items: int, seed: int) -> np.ndarray:
    """Tosses a coin for each item of each draw, bool [D, N]: where it is True, two methods exchange their sounds.

    Whatever the two are, no measure can then tell which one is better; what it finds significant is false.
    """
    return np.random.default_rng(seed).random((draws, items)) < 0.5


def resampling(items: int, resamples: int, seed: int) -> np.ndarray:
    """Draws the items of a draw with replacement: how often each is there, int64 [R, N]."""
    return draw_counts([""] * items, resamples, seed)


def power(differences: Sequence[float], resampled: Sequence[np.ndarray], items: int | None = None) -> Power:
    """Counts how often the better method is ahead, and significantly so.

    Args:
        differences: better less worse of each draw, above 0 where the better one is ahead, [D].
        resampled: the same on draws with replacement, [R] each, of the first draws or of all.
        items: of a draw, if the measure is a mean over them; see :func:`~.scoring.tails`.

    Example:
        >>> power([1.0, 0.0, -1.0, 3.0], [np.array([0.5, 1.5]), np.array([-1.0, 1.0]), np.array([-1.5, -0.5])])
        Power(ahead=0.625, significant=0.3333333333333333, reversed=0.3333333333333333, draws=4, tested=3)
    """
    ends = [interval(value, drawn, EVERYWHERE, items) for value, drawn in zip(differences, resampled, strict=False)]
    signs = np.sign(differences)
    return Power(
        ahead=float((1 + signs).mean() / 2),
        significant=float(np.mean([low > 0 for low, _ in ends])),
        reversed=float(np.mean([high < 0 for _, high in ends])),
        draws=len(signs),
        tested=len(ends),
    )


def power_of_items(
    better: np.ndarray, worse: np.ndarray, drawn: np.ndarray, counts: np.ndarray, exchanged: np.ndarray | None = None
) -> Power:
    """Measures the power of a measure that is a mean over items; all draws are tested.

    Args:
        better: its value of each item for the better method, [P]; higher is better.
        worse: for the worse one, [P].
        drawn: items, see :func:`draw_items`, [D, N].
        counts: see :func:`resampling`, [R, N].
        exchanged: see :func:`draw_exchanges`, [D, N]; None: nothing is exchanged.
    """
    differences = (better - worse)[drawn].astype(np.float64)  # [D, N]
    if exchanged is not None:
        differences = np.where(exchanged, -differences, differences)
    items = drawn.shape[1]
    return power(differences.mean(1).tolist(), [*(differences @ counts.T / items)], items)


def scores_of_set(measure: SetMeasure, generated: Tensor, reference: Tensor, counts: np.ndarray) -> np.ndarray:
    """Computes a measure of a set on rows [N, width] of both sides: as they are, then drawn anew, float64 [1 + R]."""
    every = torch.from_numpy(np.vstack([np.ones((1, len(generated)), np.int64), counts]))
    return measure.values(Drawn(generated, every), Drawn(reference, every))
