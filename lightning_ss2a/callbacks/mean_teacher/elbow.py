"""The elbow of sorted similarities: Kneedle (Satopaa et al. 2011) on some hundred quantiles.

Kneedle scales a curve to the unit square and looks for the points that stand out from its chord, the straight line
from the first point to the last. It calls a local maximum of the distance from the chord a knee as soon as the curve
has come back towards the chord by ``sensitivity`` mean steps of x. A mean step is 1 / (points - 1): on a curve of
thousands of sorted similarities next to nothing, so that at a sensitivity of 1 the first ripple passes for a knee.
Hence two changes: the curve is reduced to some hundred quantiles, which smooths it and fixes the length of a step; and
of all knees (``online=True``) the one farthest from the chord is taken, not the first.

The curve of a mixture of good and bad pairs has two bends above its chord: where the tail of the worst bad pairs ends,
and where the good ones begin. The second is the farther one as long as the teacher tells good from bad clearly or the
bad ones are not the most; where the two overlap much, the first may win, and few pairs are dropped.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lightning_ss2a.options import OptionCheck

Curve = Literal["concave", "convex"]

LEAST_QUANTILES = 10
LEAST_RANGE = 1e-6
"""Cosines that differ by no more are equal: float32 rounds as coarsely."""


@dataclass(frozen=True)
class ElbowOptions:
    """Options of an elbow, those of :class:`~lightning_ss2a.callbacks.PairFilter`, which tells what they mean."""

    sensitivity: float = 1.0
    curve: Curve = "concave"
    quantiles: int = 300
    floor_threshold: float | None = None
    min_kept_fraction: float = 0.25
    min_pairs: int = 50

    def __post_init__(self) -> None:
        check = OptionCheck("PairFilter")
        check.at_least(0, sensitivity=self.sensitivity)
        check.one_of(get_args(Curve), curve=self.curve)
        check.at_least(LEAST_QUANTILES, quantiles=self.quantiles)
        check.within(-1, 1, floor_threshold=self.floor_threshold)
        check.within(0, 1, min_kept_fraction=self.min_kept_fraction)
        check.at_least(1, min_pairs=self.min_pairs)


@dataclass(frozen=True)
class Elbow:
    """A threshold and how it came about.

    Attributes:
        threshold: similarities from here on are kept; None: all are.
        quantiles: the sorted curve, reduced, from the least similar pair on, float64 [points].
        knee: position of the chosen knee in ``quantiles``; None: there is none.
        reason: what set the threshold (``knee``, ``floor_threshold`` or ``min_kept_fraction``), or why there is none.
    """

    threshold: float | None
    quantiles: np.ndarray
    knee: int | None
    reason: str


def find_elbow(similarity: np.ndarray, options: ElbowOptions = ElbowOptions()) -> Elbow:
    """Finds the similarity below which pairs are dropped; it depends on the values alone, not on their order.

    Args:
        similarity: cosine of each pair, finite, [pairs].
        options: how to look for it, and its limits.
    """
    ordered = np.sort(np.asarray(similarity, np.float64))
    points = reduce_curve(ordered, options.quantiles)
    if len(ordered) < options.min_pairs:
        return Elbow(None, points, None, f"{len(ordered):,} pairs are fewer than min_pairs, {options.min_pairs:,}")
    if len(ordered) < 3 or ordered[-1] - ordered[0] <= LEAST_RANGE:
        return Elbow(None, points, None, "the similarities are all equal")
    knee = farthest_knee(points, options.sensitivity, options.curve)
    if knee is None:
        looked = f"{options.curve}, sensitivity {options.sensitivity:g}"
        return Elbow(None, points, None, f"the sorted curve has no knee ({looked})")
    limits = {"knee": float(points[knee])}
    if options.floor_threshold is not None:
        limits["floor_threshold"] = options.floor_threshold
    if options.min_kept_fraction > 0:
        kept = least_kept(len(ordered), options.min_kept_fraction)
        limits["min_kept_fraction"] = float(ordered[len(ordered) - kept])
    reason = min(limits, key=limits.__getitem__)  # the first of equal ones
    return Elbow(limits[reason], points, knee, reason)


def reduce_curve(ordered: np.ndarray, quantiles: int) -> np.ndarray:
    """Reduces sorted values to at most so many, evenly spaced by rank, the first and the last among them."""
    points = min(quantiles, len(ordered))
    return ordered[np.linspace(0, max(0, len(ordered) - 1), points).round().astype(np.int64)]


def least_kept(pairs: int, fraction: float) -> int:
    """Computes the least number of pairs that is a fraction of all, at least 1."""
    return max(1, int(np.ceil(fraction * pairs - 1e-9)))


def farthest_knee(points: np.ndarray, sensitivity: float, curve: Curve) -> int | None:
    """Finds the position of the knee farthest from the chord, on the side that ``curve`` names; None: no knee there."""
    from kneed import KneeLocator  # imports scipy and matplotlib

    positions = np.arange(len(points))
    found = KneeLocator(positions, points, S=sensitivity, curve=curve, direction="increasing", online=True).all_knees
    distance = distance_from_chord(points) * (1 if curve == "concave" else -1)
    knees = sorted(int(knee) for knee in found if distance[int(knee)] > 0)
    return max(knees, key=distance.__getitem__, default=None)


def distance_from_chord(points: np.ndarray) -> np.ndarray:
    """Computes how far each point is above the chord, curve and chord scaled to the unit square."""
    chord = np.linspace(points[0], points[-1], len(points))
    return (points - chord) / (points.max() - points.min())
