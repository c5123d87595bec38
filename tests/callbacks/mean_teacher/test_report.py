"""The figure and the texts of a filtering."""

from typing import Any

import numpy as np
import pytest
from scipy.integrate import trapezoid

from lightning_ss2a.callbacks.mean_teacher.pair_filter import decide
from lightning_ss2a.callbacks.mean_teacher.report import PairReport, filter_figure, filter_table, summary_line
from tests.callbacks.figures.test_manifold import labels
from tests.callbacks.mean_teacher.mixtures import mixture, unlimited


def report_of(rate: float = 0.3, pairs: int = 2_000, origins: tuple[int, ...] = (1, 2), **options: Any) -> PairReport:
    similarity, _ = mixture(pairs, rate, 0)
    columns = {
        "key": np.arange(pairs).astype("S"),
        "pair_origin": np.resize(origins, pairs).astype(np.uint8),
        "class_index": np.arange(pairs) % 3,
    }
    return decide(columns, np.arange(pairs), similarity, ["cat", "dog", "owl"], unlimited(**options))


def test_the_figure_shows_the_curve_its_knee_and_both_origins():
    report = report_of()
    figure = filter_figure(report)
    left, right = figure.axes
    threshold, curve, chord, _, knee = left.lines
    assert np.array_equal(curve.get_ydata(), report.elbow.quantiles)
    assert list(chord.get_ydata()) == [report.elbow.quantiles[0], report.elbow.quantiles[-1]]
    assert list(knee.get_ydata()) == [report.elbow.quantiles[report.elbow.knee]]
    assert set(threshold.get_ydata()) == {report.elbow.threshold} == set(right.lines[0].get_ydata())
    share = 100 * report.elbow.knee / (len(report.elbow.quantiles) - 1)
    assert labels(left.get_legend().get_texts())[-1] == f"knee: {report.elbow.threshold:.3f} at {share:.0f} %"
    fractions = [100 * report.kept[mask].mean() for mask in report.by_origin.values()]
    assert labels(right.get_legend().get_texts()) == [
        f"{name}: {fraction:.1f} % of 1,000 kept"
        for name, fraction in zip(("curated", "translated"), fractions, strict=True)
    ]
    assert "from the least similar" in left.get_xlabel()
    assert figure.get_suptitle() == (
        f"Pair filter: {report.kept.sum():,} of 2,000 noisy pairs kept\nthreshold {report.elbow.threshold:.3f}"
    )


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({"curve": "convex"}, "threshold 0.9"),
        ({"floor_threshold": 0.25}, "threshold 0.250 (set by floor_threshold)"),
        ({"min_kept_fraction": 0.9}, "(set by min_kept_fraction)"),
        ({"min_pairs": 5_000}, "no threshold: 2,000 pairs are fewer than min_pairs, 5,000"),
        ({"origins": (2,)}, "threshold 0.8"),
    ],
    ids=["curve", "floor_threshold", "min_kept_fraction", "min_pairs", "origins"],
)
def test_the_title_says_what_set_the_threshold(options: dict, title: str):
    report = report_of(**options)
    figure = filter_figure(report)
    figure.canvas.draw()
    assert title in figure.get_suptitle()
    assert title in summary_line(report)
    assert "from the least similar" in figure.axes[0].get_xlabel()
    assert len(labels(figure.axes[1].get_legend().get_texts())) == len(report.by_origin)


def test_the_figure_shows_the_groups_and_both_cuts():
    report = report_of(0.85, least_separation=2.0)
    assert report.elbow.reason == "boundary"
    figure = filter_figure(report)
    left, right = figure.axes
    groups = report.elbow.groups
    threshold, *curves, boundary = right.lines
    assert set(threshold.get_ydata()) == {report.elbow.threshold} == {groups.boundary} == set(boundary.get_ydata())
    assert len(curves) == 2
    drawn = sum(trapezoid(curve.get_xdata(), curve.get_ydata()) for curve in curves)
    counts, edges = np.histogram(report.similarity, 60)
    assert drawn == pytest.approx(counts.sum() * (edges[1] - edges[0]), rel=0.02)
    shown = labels(right.get_legend().get_texts())
    assert f"boundary: {groups.boundary:.3f}" in shown
    assert any(text.startswith(f"two groups: {groups.mean[0]:.3f} and {groups.mean[1]:.3f}, ") for text in shown)
    assert labels(left.get_legend().get_texts())[-1].startswith(f"knee: {report.elbow.knee_similarity:.3f} at ")
    assert "(set by boundary)" in figure.get_suptitle()
    scalars = report.scalars()
    assert scalars["pair_filter/elbow"] < scalars["pair_filter/boundary"] == scalars["pair_filter/threshold"]


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_a_figure_of_hardly_any_pairs(pairs: int):
    report = report_of(pairs=pairs, min_pairs=50)
    filter_figure(report).canvas.draw()
    assert len(filter_table(report).splitlines()) == pairs + 1


def test_origins_without_pairs_are_not_counted():
    report = report_of(origins=(1,))
    assert set(report.scalars()) == {
        "pair_filter/kept_fraction/curated",
        "pair_filter/kept_noisy_rows",
        "pair_filter/threshold",
        "pair_filter/elbow",
    }
    assert "translated" not in summary_line(report)


def test_equal_similarities_are_listed_in_the_order_of_rows():
    names = ["b", "a", "c", "d"]
    columns = {"key": np.array(names, "S"), "pair_origin": np.ones(4, np.uint8), "class_index": np.zeros(4, int)}
    report = decide(columns, np.arange(4), np.array([0.5, 0.5, -0.1, 0.6]), ['say "cat", twice'], unlimited())
    assert filter_table(report).decode().splitlines()[1:] == [
        'c,curated,"say ""cat"", twice",2,-0.100000,false',
        'b,curated,"say ""cat"", twice",0,0.500000,true',
        'a,curated,"say ""cat"", twice",1,0.500000,true',
        'd,curated,"say ""cat"", twice",3,0.600000,true',
    ]
