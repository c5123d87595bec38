"""Reports of a filtering: a table of all pairs, a line, scalars and a figure."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_ss2a.callbacks.mean_teacher.elbow import Elbow
from lightning_ss2a.data import PAIR_ORIGINS
from lightning_ss2a.drawing import new_figure
from lightning_ss2a.tables import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("key", "pair_origin", "class", "index", "similarity", "kept")
COLOURS = {"curated": "tab:blue", "translated": "tab:orange"}
BINS = 60


@dataclass(frozen=True)
class PairReport:
    """One filtering, over the pairs that are not annotated.

    Attributes:
        keys: key of each pair, bytes [pairs].
        rows: its number among all training rows.
        pair_origin: position of its origin in ``PAIR_ORIGINS``.
        class_index: its class.
        classes: names of all classes.
        similarity: its cosine.
        kept: whether it is kept.
        elbow: the threshold.
        rescued: classes whose pairs are kept only because the class would have lost all.
    """

    keys: np.ndarray
    rows: np.ndarray
    pair_origin: np.ndarray
    class_index: np.ndarray
    classes: list[str]
    similarity: np.ndarray
    kept: np.ndarray
    elbow: Elbow
    rescued: np.ndarray

    @cached_property
    def by_origin(self) -> dict[str, np.ndarray]:
        """Mask of the pairs of each origin that there is."""
        masks = {name: self.pair_origin == number for number, name in enumerate(PAIR_ORIGINS)}
        return {name: mask for name, mask in masks.items() if mask.any()}

    def scalars(self) -> dict[str, float]:
        """Lists what TensorBoard shows by name; what there is none of, a threshold or a boundary, is left out."""
        kept = {name: float(self.kept[mask].mean()) for name, mask in self.by_origin.items()}
        scalars = {f"pair_filter/kept_fraction/{name}": fraction for name, fraction in kept.items()}
        scalars["pair_filter/kept_noisy_rows"] = float(self.kept.sum())
        groups = self.elbow.groups
        cuts = {
            "threshold": self.elbow.threshold,
            "elbow": self.elbow.knee_similarity,
            "boundary": None if groups is None else groups.boundary,
            "separation": None if groups is None else groups.separation,
        }
        return scalars | {f"pair_filter/{name}": value for name, value in cuts.items() if value is not None}


def summary_line(report: PairReport) -> str:
    """Writes how many pairs of each origin are kept, and from which similarity on."""
    counts = [
        f"{report.kept[mask].sum():,} of {mask.sum():,} {name} pairs ({100 * report.kept[mask].mean():.1f} %)"
        for name, mask in report.by_origin.items()
    ]
    return f"PairFilter: kept {', '.join(counts)}, {_threshold_text(report.elbow)}"


def boundary_warning(elbow: Elbow) -> str:
    """Names the elbow, if there is one, and the boundary of the two groups that takes its place."""
    found, groups = elbow.knee_similarity, elbow.groups
    assert groups is not None  # which set the boundary
    low, high = groups.mean
    there = "the sorted curve has no elbow" if found is None else f"the elbow, {found:.3f}, is not between them"
    return (
        f"PairFilter: the similarities are two groups, about {low:.3f} and {high:.3f}, and {there}: pairs are dropped "
        f"below the groups' boundary, {groups.boundary:.3f}"
    )


def filter_table(report: PairReport) -> bytes:
    """Writes a CSV file of all pairs, the least similar first."""
    rows = []
    for i in np.lexsort((report.rows, report.similarity)):
        name, kept = report.classes[report.class_index[i]], "true" if report.kept[i] else "false"
        similarity = f"{report.similarity[i]:.6f}"
        origin = PAIR_ORIGINS[report.pair_origin[i]]
        rows.append([report.keys[i].decode(), origin, name, report.rows[i], similarity, kept])
    return csv_text(COLUMNS, rows).encode()


def filter_figure(report: PairReport) -> "Figure":
    """Draws the sorted curve with chord, knee and threshold, and a histogram by origin with the two groups.

    Both are on one axis of similarity.
    """
    figure = new_figure(8.4, 4.4)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    lowest, highest = float(report.similarity.min()), float(report.similarity.max())
    margin = 0.04 * (highest - lowest) + 1e-3
    left.set_ylim(lowest - margin, highest + margin)
    if report.elbow.threshold is not None:
        for axes in (left, right):
            label = "dropped" if axes is left else None
            axes.axhspan(lowest - margin, report.elbow.threshold, color="crimson", alpha=0.07, linewidth=0, label=label)
            axes.axhline(report.elbow.threshold, color="crimson", linewidth=1)
    _draw_curve(left, report.elbow)
    _draw_histograms(right, report)
    _draw_groups(right, report)
    right.legend(loc="lower right", fontsize=8, frameon=False)
    kept = f"{report.kept.sum():,} of {len(report.kept):,} noisy pairs kept"
    figure.suptitle(f"Pair filter: {kept}\n{_threshold_text(report.elbow)}", fontsize=10)
    return figure


def _threshold_text(elbow: Elbow) -> str:
    if elbow.threshold is None:
        return f"no threshold: {elbow.reason}"
    return f"threshold {elbow.threshold:.3f}" + ("" if elbow.reason == "knee" else f" (set by {elbow.reason})")


def _draw_curve(axes: Any, elbow: Elbow) -> None:
    points = elbow.quantiles
    share = np.linspace(0, 100, len(points))
    axes.plot(share, points, color="black", linewidth=1.4, label="sorted pairs")
    axes.plot(share[[0, -1]], points[[0, -1]], color="grey", linewidth=0.8, linestyle="--", label="chord")
    if elbow.knee is not None:
        x, y = share[elbow.knee], points[elbow.knee]
        chord = points[0] + (points[-1] - points[0]) * x / 100
        axes.plot([x, x], [chord, y], color="grey", linewidth=0.8, linestyle=":")
        axes.plot([x], [y], "o", color="crimson", markersize=6, label=f"knee: {y:.3f} at {x:.0f} %")
    axes.set(xlabel="noisy pairs, from the least similar (%)", ylabel="teacher's cosine of visual and audio CMSS")
    axes.set_xlim(-1, 101)
    axes.legend(loc="best", fontsize=8, facecolor="white", edgecolor="none")


def _draw_histograms(axes: Any, report: PairReport) -> None:
    edges = np.linspace(report.similarity.min(), report.similarity.max() + 1e-6, BINS + 1)
    for name, mask in report.by_origin.items():
        label = f"{name}: {100 * report.kept[mask].mean():.1f} % of {mask.sum():,} kept"
        options = {"orientation": "horizontal", "color": COLOURS[name], "label": label}
        axes.hist(report.similarity[mask], edges, histtype="stepfilled", alpha=0.35, **options)
        axes.hist(report.similarity[mask], edges, histtype="step", linewidth=1, **options | {"label": None})
    axes.set(xlabel="pairs")
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_groups(axes: Any, report: PairReport) -> None:
    """Draws the pairs that each group would have in each bin of the histogram, and the groups' boundary."""
    groups = report.elbow.groups
    if groups is None:
        return
    similarity = np.linspace(report.similarity.min(), report.similarity.max(), 200)
    per_bin = len(report.similarity) * np.ptp(report.similarity) / BINS
    pairs = per_bin * np.exp(groups.log_densities(similarity))
    label = f"two groups: {groups.mean[0]:.3f} and {groups.mean[1]:.3f}, {groups.separation:.1f} apart"
    axes.plot(pairs, similarity, color="black", linewidth=0.9, label=[label, "_"])
    if groups.boundary is not None:
        axes.axhline(
            groups.boundary, color="black", linewidth=1, linestyle="-.", label=f"boundary: {groups.boundary:.3f}"
        )
