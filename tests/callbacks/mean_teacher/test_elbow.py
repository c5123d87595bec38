"""Kneedle on sorted similarities: which pairs a threshold drops, where the truth is known."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.callbacks.mean_teacher.elbow import (
    LEAST_RANGE,
    Elbow,
    distance_from_chord,
    find_elbow,
    reduce_curve,
)
from tests.callbacks.mean_teacher.mixtures import STRONG, WEAK, bells, mixture, unlimited

LEAST_PRECISION = {0.1: 0.75, 0.3: 0.90, 0.5: 0.90}
LEAST_RECALL = 0.95


def dropped(similarity: np.ndarray, elbow: Elbow) -> np.ndarray:
    return np.zeros(len(similarity), bool) if elbow.threshold is None else similarity < elbow.threshold


def quality(drops: np.ndarray, mismatched: np.ndarray) -> tuple[float, float]:
    """Precision and recall of dropping; a filter that drops nothing has no precision."""
    found = (drops & mismatched).sum()
    return found / max(1, drops.sum()), found / mismatched.sum()


def is_good(drops: np.ndarray, mismatched: np.ndarray, rate: float) -> bool:
    precision, recall = quality(drops, mismatched)
    return precision >= LEAST_PRECISION[rate] and recall >= LEAST_RECALL


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", LEAST_PRECISION)
def test_mismatched_pairs_are_dropped_and_few_others(rate, seed):
    similarity, mismatched = mixture(12_000, rate, seed)
    assert is_good(dropped(similarity, find_elbow(similarity, unlimited())), mismatched, rate)


@pytest.mark.parametrize("rate", LEAST_PRECISION)
def test_the_measure_tells_a_filter_from_none_and_from_chance(rate):
    similarity, mismatched = mixture(12_000, rate, 0)
    chance = (
        np.random.default_rng(1).random(len(similarity))
        < dropped(similarity, find_elbow(similarity, unlimited())).mean()
    )
    assert not is_good(np.zeros(len(similarity), bool), mismatched, rate)
    assert not is_good(chance, mismatched, rate)
    assert not is_good(np.ones(len(similarity), bool), mismatched, rate)


@pytest.mark.parametrize("seed", range(4))
def test_without_mismatch_a_tail_is_cut_which_a_floor_prevents(seed):
    similarity, _ = mixture(80_000, 0.0, seed)
    assert 0.01 < dropped(similarity, find_elbow(similarity, unlimited())).mean() <= 0.12
    floored = find_elbow(similarity, unlimited(floor_threshold=0.4))
    assert (floored.threshold, floored.reason) == (0.4, "floor_threshold")
    assert dropped(similarity, floored).mean() < 0.005


# -------------------------------------------------------------------- judged by two groups


def judged(similarity: np.ndarray, **options) -> Elbow:
    return find_elbow(similarity, unlimited(least_separation=2.0, **options))


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.65, 0.7, 0.8])
@pytest.mark.parametrize("similarities", [mixture, lambda *mix: bells(*mix, STRONG)], ids=["long tail", "bells"])
def test_a_strong_teachers_mismatched_pairs_are_dropped_at_any_rate(similarities, rate):
    similarity, mismatched = similarities(10_000, rate, 0)
    elbow = judged(similarity)
    precision, recall = quality(dropped(similarity, elbow), mismatched)
    assert elbow.groups.separation > 5
    assert recall > 0.99
    assert precision > (0.9 if rate > 0.05 else 0.7)  # where the elbow stands it cuts a tail of good pairs
    boundary = quality(similarity < elbow.groups.boundary, mismatched)
    assert min(boundary) > 0.98


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("similarities", [mixture, lambda *mix: bells(*mix, STRONG), lambda *mix: bells(*mix, WEAK)])
def test_without_mismatch_nothing_is_dropped(similarities, seed):
    elbow = judged(similarities(10_000, 0.0, seed)[0])
    assert elbow.threshold is None
    assert elbow.knee is not None  # which the paper would cut at
    assert elbow.groups.separation < 2
    assert "not two groups" in elbow.reason


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_pairs_that_are_equal_in_everything_are_no_group(share):
    """They passed for the good group, and up to three quarters of the pairs, all good, went."""
    similarity = bells(20_000, 0.0, 0, STRONG)[0]
    similarity[: int(share * len(similarity))] = 1.0
    assert find_elbow(similarity).threshold is None


def test_a_weak_teacher_drops_what_is_likelier_mismatched_or_nothing():
    similarity, mismatched = bells(10_000, 0.5, 0, WEAK)
    elbow = judged(similarity)
    assert elbow.reason == "boundary"
    assert quality(dropped(similarity, elbow), mismatched) == pytest.approx((0.89, 0.89), abs=0.03)
    assert judged(bells(10_000, 0.02, 0, WEAK)[0]).threshold is None
    assert judged(bells(10_000, 0.9, 0, WEAK)[0]).threshold is None


def test_the_elbow_alone_fails_where_most_pairs_are_mismatched():
    similarity, mismatched = bells(10_000, 0.8, 0, STRONG)
    elbow = find_elbow(similarity, unlimited())
    assert (elbow.reason, elbow.groups) == ("knee", None)
    assert quality(dropped(similarity, elbow), mismatched)[1] < 0.1
    assert judged(similarity).knee_similarity == elbow.threshold < judged(similarity).threshold


def test_a_curve_without_a_knee_is_cut_at_the_boundary():
    similarity, _ = bells(10_000, 0.5, 0, STRONG)
    elbow = judged(similarity, sensitivity=1e4)
    assert (elbow.knee, elbow.knee_similarity, elbow.reason) == (None, None, "boundary")
    assert elbow.threshold == elbow.groups.boundary


def test_limits_hold_for_the_boundary_too():
    similarity, _ = bells(10_000, 0.8, 0, STRONG)
    assert judged(similarity, floor_threshold=0.3).reason == "floor_threshold"
    assert (similarity >= judged(similarity, min_kept_fraction=0.4).threshold).sum() == 4_000


RATES = (0, 5, 20, 50, 65, 70, 80)


def table_of_rates() -> list[str]:
    """Precision and recall by rate of mismatch, a strong teacher then a weak one: the elbow alone, and judged."""
    lines = []
    for percent in RATES:
        cells = [f"{percent} %"]
        for teacher in (STRONG, WEAK):
            similarity, mismatched = bells(20_000, percent / 100, 0, teacher)
            for elbow in (find_elbow(similarity, unlimited()), judged(similarity)):
                drops = dropped(similarity, elbow)
                right = "{:.2f} / {:.2f}".format(*quality(drops, mismatched)) if percent else f"{drops.mean():.0%} cut"
                cells.append(right if drops.any() else "all kept")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def test_the_table_of_the_docs():
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")
    assert re.findall(r"^\| \d+ % \|.*$", page, re.M) == table_of_rates()


def test_a_floor_above_the_elbow_changes_nothing():
    similarity, _ = mixture(12_000, 0.3, 0)
    elbow, floored = find_elbow(similarity, unlimited()), find_elbow(similarity, unlimited(floor_threshold=0.9))
    assert (floored.threshold, floored.reason) == (elbow.threshold, "knee")


def test_the_first_knee_of_all_similarities_is_a_ripple():
    """Why the curve is reduced to quantiles, and why the farthest knee is taken."""
    from kneed import KneeLocator

    similarity, mismatched = mixture(12_000, 0.3, 0)
    ordered = np.sort(similarity)
    ripple = ordered[KneeLocator(np.arange(len(ordered)), ordered, S=1.0).knee]
    assert quality(similarity < ripple, mismatched)[1] < 0.6
    elbow = find_elbow(similarity, unlimited())
    assert quality(dropped(similarity, elbow), mismatched)[1] > 0.99
    distance = distance_from_chord(elbow.quantiles)
    assert distance[elbow.knee] == pytest.approx(distance.max(), abs=0.01)


def test_a_knee_that_can_be_read_off():
    """Ten values rise steeply, ninety hardly: the elbow is where the plateau begins."""
    similarity = np.concatenate([np.linspace(-0.4, 0.5, 10, endpoint=False), np.linspace(0.5, 0.6, 90)])
    elbow = find_elbow(similarity, unlimited())
    assert (elbow.threshold, elbow.knee, elbow.reason) == (pytest.approx(0.5), 10, "knee")
    assert np.array_equal(elbow.quantiles, similarity)


def test_convex_keeps_only_the_best():
    similarity = np.concatenate([np.linspace(0.1, 0.2, 90), np.linspace(0.2, 0.9, 11)[1:]])
    elbow = find_elbow(similarity, unlimited(curve="convex"))
    assert elbow.threshold == pytest.approx(0.2)
    assert (similarity >= elbow.threshold).sum() == 11


@pytest.mark.parametrize(
    ("similarity", "options", "reason"),
    [
        (np.zeros(0), {}, "0 pairs are fewer than min_pairs, 1"),
        (np.linspace(-1, 1, 49) ** 3, {"min_pairs": 50}, "49 pairs are fewer than min_pairs, 50"),
        (np.full(100, 0.7), {}, "all equal"),
        (0.7 + LEAST_RANGE * np.linspace(0, 0.9, 100) ** 2, {}, "all equal"),
        (np.array([0.1]), {}, "all equal"),
        (np.array([0.1, 0.9]), {}, "all equal"),
        (np.linspace(0, 1, 129), {}, "no knee"),
        (np.linspace(0, 1, 1000) ** 3, {}, "no knee"),  # everywhere below its chord
        (np.linspace(0, 1, 1000) ** (1 / 3), {"sensitivity": 1e4}, "no knee"),
    ],
)
def test_curves_without_an_elbow_give_no_threshold(similarity, options, reason):
    elbow = find_elbow(similarity, unlimited(**options))
    assert elbow.threshold is None
    assert elbow.knee is None
    assert reason in elbow.reason


@pytest.mark.parametrize("fraction", [0.7, 0.9, 1.0])
def test_the_least_part_that_is_kept_lowers_the_threshold(fraction):
    similarity, _ = mixture(1_000, 0.5, 0)
    elbow = find_elbow(similarity, unlimited(min_kept_fraction=fraction))
    assert elbow.reason == "min_kept_fraction"
    assert (similarity >= elbow.threshold).sum() == round(1_000 * fraction)
    assert find_elbow(similarity, unlimited(min_kept_fraction=0.2)).reason == "knee"


def test_quantiles_are_values_of_the_curve_with_both_its_ends():
    ordered = np.sort(np.random.default_rng(0).normal(size=1_001))
    points = reduce_curve(ordered, 300)
    assert len(points) == 300
    assert np.isin(points, ordered).all()
    assert (points[0], points[-1]) == (ordered[0], ordered[-1])
    assert np.array_equal(reduce_curve(ordered[:7], 300), ordered[:7])


# Whole numbers, so that scaling and shifting them is exact.
VALUES = st.lists(st.integers(-1000, 1000), min_size=3, max_size=400).map(lambda x: np.array(x, np.float64))
OPTIONS = st.fixed_dictionaries(
    {
        "sensitivity": st.floats(0, 5),
        "curve": st.sampled_from(["concave", "convex"]),
        "quantiles": st.integers(10, 300),
        "min_kept_fraction": st.floats(0, 1),
    }
)


@settings(deadline=None, max_examples=150)
@given(VALUES, OPTIONS)
def test_at_least_the_stated_part_is_kept(values, options):
    elbow = find_elbow(values, unlimited(**options))
    kept = ~dropped(values, elbow)
    assert kept.mean() >= options["min_kept_fraction"] - 1e-9
    assert kept.any()
    assert not kept.all() or elbow.threshold is None or elbow.threshold <= values.min()


@settings(deadline=None, max_examples=150)
@given(VALUES, OPTIONS, st.integers(0, 1000), st.sampled_from([None, 2.0]))
def test_the_order_of_pairs_does_not_matter(values, options, seed, least_separation):
    shuffled, chosen = np.random.default_rng(seed).permutation(values), unlimited(**options)
    chosen = replace(chosen, least_separation=least_separation)
    assert find_elbow(values, chosen).threshold == find_elbow(shuffled, chosen).threshold


@settings(deadline=None, max_examples=150)
@given(VALUES, OPTIONS, st.integers(1, 100), st.integers(-1000, 1000))
def test_scale_and_offset_of_similarities_do_not_matter(values, options, scale, offset):
    one, other = find_elbow(values, unlimited(**options)), find_elbow(scale * values + offset, unlimited(**options))
    assert np.array_equal(dropped(values, one), dropped(scale * values + offset, other))


@settings(deadline=None, max_examples=100)
@given(VALUES, OPTIONS, st.integers(-1000, 1000))
def test_pairs_at_the_floor_are_kept(values, options, floor):
    values, floor = values / 1024, floor / 1024  # cosines, just as exact
    drops = dropped(values, find_elbow(values, unlimited(**options, floor_threshold=floor)))
    assert not drops[values >= floor].any()
    assert not (drops & ~dropped(values, find_elbow(values, unlimited(**options)))).any()  # a floor never drops more
