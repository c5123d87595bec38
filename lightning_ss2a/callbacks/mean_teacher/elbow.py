"""The elbow of sorted similarities: Kneedle (Satopaa et al. 2011) on some hundred quantiles.

Kneedle scales a curve to the unit square and looks for the points that stand out from its chord, the straight line
from the first point to the last. It calls a local maximum of the distance from the chord a knee as soon as the curve
has come back towards the chord by ``sensitivity`` mean steps of x. A mean step is 1 / (points - 1): on a curve of
thousands of sorted similarities next to nothing, so that at a sensitivity of 1 the first ripple passes for a knee.
Hence two changes: the curve is reduced to some hundred quantiles, which smooths it and fixes the length of a step; and
of all knees (``online=True``) the one farthest from the chord is taken, not the first.

The curve of a mixture of good and bad pairs has two bends above its chord: where the tail of the worst bad pairs ends,
and where the good ones begin. The second is the farther one while the bad ones are not the most; from about 70 % bad
pairs on the first wins, however clearly the teacher tells good from bad, and next to nothing is dropped. And a curve of
good pairs alone has a bend, too. A mixture of two Gaussians (``two_groups``) judges the elbow: it stands if it lies
between the means of two groups that are apart; if it lies elsewhere, the groups' own boundary takes its place; and
where there are no two groups apart, nothing says which pairs are bad.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lightning_ss2a.callbacks.mean_teacher.two_groups import TwoGroups, fit_two_groups
from lightning_ss2a.options import OptionCheck

Curve = Literal["concave", "convex"]

LEAST_QUANTILES = 10
LEAST_RANGE = 1e-6
"""Cosines that differ by no more are equal: float32 rounds as coarsely."""
GROUP_POINTS = 2_000
"""Quantiles that the two groups are fitted to, so that the time does not grow with the pairs."""


@dataclass(frozen=True)
class ElbowOptions:
    """Options of an elbow, those of :class:`~lightning_ss2a.callbacks.PairFilter`, which tells what they mean."""

    sensitivity: float = 1.0
    curve: Curve = "concave"
    quantiles: int = 300
    floor_threshold: float | None = None
    min_kept_fraction: float = 0.25
    min_pairs: int = 50
    least_separation: float | None = 2.0

    def __post_init__(self) -> None:
        check = OptionCheck("PairFilter")
        check.at_least(0, sensitivity=self.sensitivity)
        check.one_of(get_args(Curve), curve=self.curve)
        check.at_least(LEAST_QUANTILES, quantiles=self.quantiles)
        check.within(-1, 1, floor_threshold=self.floor_threshold)
        check.within(0, 1, min_kept_fraction=self.min_kept_fraction)
        check.at_least(1, min_pairs=self.min_pairs)
        check.at_least(0, least_separation=self.least_separation)


@dataclass(frozen=True)
class Elbow:
    """A threshold and how it came about.

    Attributes:
        threshold: similarities from here on are kept; None: all are.
        quantiles: the sorted curve, reduced, from the least similar pair on, float64 [points].
        knee: position of the chosen knee in ``quantiles``; None: there is none.
        reason: what set the threshold (``knee``, ``boundary`` of the two groups, ``floor_threshold`` or
            ``min_kept_fraction``), or why there is none.
        groups: the two groups that judged the elbow; None: they were not asked for.
    """

    threshold: float | None
    quantiles: np.ndarray
    knee: int | None
    reason: str
    groups: TwoGroups | None = None

    @property
    def knee_similarity(self) -> float | None:
        """Similarity at the chosen knee, the paper's threshold; None: there is no knee."""
        return None if self.knee is None else float(self.quantiles[self.knee])


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
    found = None if knee is None else float(points[knee])
    if options.least_separation is None or options.curve == "convex":
        groups, cut, reason = None, found, _reason_without_knee(options) if found is None else "knee"
    else:
        groups = fit_two_groups(reduce_curve(ordered, GROUP_POINTS))
        cut, reason = judge(found, groups, options.least_separation)
    if cut is None:
        return Elbow(None, points, knee, reason, groups)
    limits = {reason: cut}
    if options.floor_threshold is not None:
        limits["floor_threshold"] = options.floor_threshold
    if options.min_kept_fraction > 0:
        kept = least_kept(len(ordered), options.min_kept_fraction)
        limits["min_kept_fraction"] = float(ordered[len(ordered) - kept])
    reason = min(limits, key=limits.__getitem__)  # the first of equal ones
    return Elbow(limits[reason], points, knee, reason, groups)


def judge(knee: float | None, groups: TwoGroups, least_separation: float) -> tuple[float | None, str]:
    """Takes the knee if it lies between the means of two groups apart, else their boundary; None: there are none.

    Args:
        knee: the elbow's similarity; None: the curve has none.
        groups: of all similarities.
        least_separation: Ashman's D from which on two groups are apart.

    Returns:
        The similarity to cut at, and ``knee``, ``boundary`` or why there is none.
    """
    boundary = groups.boundary
    if groups.separation < least_separation:
        apart = f"{groups.separation:.2f} apart, below least_separation, {least_separation:g}"
        return None, f"nothing tells good pairs from bad: the similarities are not two groups ({apart})"
    if boundary is None:
        return None, "nothing tells good pairs from bad: one group of similarities lies within the other"
    if knee is not None and groups.mean[0] <= knee <= groups.mean[1]:
        return knee, "knee"
    return boundary, "boundary"


def _reason_without_knee(options: ElbowOptions) -> str:
    return f"the sorted curve has no knee ({options.curve}, sensitivity {options.sensitivity:g})"


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
