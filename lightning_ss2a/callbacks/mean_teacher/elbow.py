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

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from lightning_ss2a.errors import InputError

Curve = Literal["concave", "convex"]

LEAST_QUANTILES = 10
LEAST_RANGE = 1e-6
"""Cosines that differ by no more are equal: float32 rounds as coarsely."""


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


def find_elbow(
    similarity: np.ndarray,
    *,
    sensitivity: float = 1.0,
    curve: Curve = "concave",
    quantiles: int = 300,
    floor_threshold: float | None = None,
    min_kept_fraction: float = 0.0,
    min_pairs: int = 1,
) -> Elbow:
    """Finds the similarity below which pairs are dropped; it depends on the values alone, not on their order.

    Args:
        similarity: cosine of each pair, finite, [pairs].
        sensitivity: S of Kneedle, in mean steps of the curve.
        curve: on which side of the chord to look, see :class:`~lightning_ss2a.callbacks.PairFilter`.
        quantiles: points of the curve, at most.
        floor_threshold: the threshold is at most this.
        min_kept_fraction: part of the pairs that is kept at least.
        min_pairs: with fewer there is no threshold.
    """
    ordered = np.sort(np.asarray(similarity, np.float64))
    points = reduce_curve(ordered, quantiles)
    if len(ordered) < min_pairs:
        return Elbow(None, points, None, f"{len(ordered):,} pairs are fewer than min_pairs, {min_pairs:,}")
    if len(ordered) < 3 or ordered[-1] - ordered[0] <= LEAST_RANGE:
        return Elbow(None, points, None, "the similarities are all equal")
    knee = farthest_knee(points, sensitivity, curve)
    if knee is None:
        return Elbow(None, points, None, f"the sorted curve has no knee ({curve}, sensitivity {sensitivity:g})")
    limits = {"knee": float(points[knee])}
    if floor_threshold is not None:
        limits["floor_threshold"] = floor_threshold
    if min_kept_fraction > 0:
        limits["min_kept_fraction"] = float(ordered[len(ordered) - least_kept(len(ordered), min_kept_fraction)])
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


def check_options(options: Mapping[str, Any]) -> None:
    """Checks that options of :func:`find_elbow` are in their ranges.

    Raises:
        InputError: names the first that is not.
    """
    floor, curves = options["floor_threshold"], get_args(Curve)
    problems = {
        "sensitivity": None if 0 <= options["sensitivity"] < math.inf else "a number of at least 0",
        "curve": None if options["curve"] in curves else f"one of {', '.join(curves)}",
        "quantiles": None if options["quantiles"] >= LEAST_QUANTILES else f"at least {LEAST_QUANTILES}",
        "floor_threshold": None if floor is None or -1 <= floor <= 1 else "a cosine, -1 to 1 (or null)",
        "min_kept_fraction": None if 0 <= options["min_kept_fraction"] <= 1 else "0 to 1",
        "min_pairs": None if options["min_pairs"] >= 1 else "at least 1",
    }
    for name, needs in problems.items():
        if needs is not None:
            raise InputError(f"PairFilter.{name} is {options[name]!r}, needs {needs}")
