import math
import random

import pytest

from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.sweeps.reporting.ranking import pareto_front, rank

UP = Objective("val/ssms")
DOWN = Objective("val/loss", maximize=False)


def trial(number: int, *values: float, metric: str = "val/ssms", state: str = "complete") -> TrialRecord:
    return TrialRecord(number, state, {"x": number}, {f"seed_{i}": {metric: value} for i, value in enumerate(values)})


def numbers(ranked) -> list[int]:
    return [item.record.number for item in ranked]


def test_best_mean_first_and_equal_means_by_number():
    records = [trial(0, 1.0), trial(3, 2.0), trial(2, 2.0), trial(1, 3.0)]
    assert numbers(rank(records, UP)) == [1, 2, 3, 0]


def test_worse_is_positive_when_less_is_better():
    ranked = rank([trial(0, 1.0, 2.0, metric="val/loss"), trial(1, 4.0, 6.0, metric="val/loss")], DOWN)
    assert numbers(ranked) == [0, 1]
    assert (ranked[1].behind, ranked[1].behind_spread) == (3.5, pytest.approx(math.sqrt(0.5)))


def test_the_hand_worked_case():
    # Differences to the best by seed: 0.1, 0.3, 0.2: mean 0.2, standard deviation 0.1.
    best, other = rank([trial(0, 1.0, 2.0, 3.0), trial(1, 0.9, 1.7, 2.8)], UP)
    assert (best.value, best.spread) == (2.0, 1.0)
    assert (best.behind, best.behind_spread, best.tied) == (0.0, 0.0, True)
    assert other.behind == pytest.approx(0.2)
    assert other.behind_spread == pytest.approx(0.1)
    # The seeds spread ten times as much as the trials differ, but they do so in both: paired, this is no tie.
    assert other.tied is False


def test_within_the_spread():
    _, other = rank([trial(0, 1.0, 2.0), trial(1, 1.5, 1.4)], UP)
    assert other.behind == pytest.approx(0.05)
    assert other.tied is True


def test_one_repeat_tells_no_spread():
    best, other = rank([trial(0, 1.0), trial(1, 0.5)], UP)
    assert best.tied is None
    assert other.tied is None
    assert other.behind == 0.5
    assert math.isnan(other.behind_spread)
    assert math.isnan(other.spread)


def test_a_trial_does_not_win_by_missing_the_hard_repeats():
    full, short = trial(0, 3.0, 1.0), trial(1, 2.9)
    ranked = rank([short, full], UP)
    assert numbers(ranked) == [0, 1]
    assert ranked[1].behind == pytest.approx(0.1)
    assert ranked[1].tied is None


def test_a_repeat_that_diverged_is_a_missing_repeat():
    assert numbers(rank([trial(0, 9.0, math.nan), trial(1, 1.0, 1.0), trial(2, math.inf, 9.5)], UP)) == [1, 2, 0]


def test_no_common_repeat():
    other = TrialRecord(1, "complete", {}, {"seed_7": {"val/ssms": 1.0}})
    assert math.isnan(rank([trial(0, 2.0), other], UP)[1].behind)


@pytest.mark.parametrize("state", ["waiting", "running", "pruned", "failed"])
def test_only_complete_trials_with_a_value_have_a_place(state):
    assert rank([trial(0, 1.0, state=state), trial(1, math.nan), trial(2)], UP) == []


def test_records_may_come_from_a_generator():
    assert numbers(rank((trial(i, float(i)) for i in range(3)), UP)) == [2, 1, 0]


def both(number: int, up: float, down: float, state: str = "complete") -> TrialRecord:
    return TrialRecord(number, state, {}, {"seed_0": {"val/ssms": up, "val/loss": down}})


def test_the_front_keeps_what_none_dominates():
    records = [both(0, 1, 1), both(1, 2, 2), both(2, 1, 2), both(3, 0, 0), both(4, 2, 2), both(5, 9, 0, "failed")]
    assert [record.number for record in pareto_front(records, [UP, DOWN])] == [1, 4, 0, 3]


def test_the_front_equals_the_definition():
    draw = random.Random(0)
    records = [both(i, draw.randint(0, 5), draw.randint(0, 5)) for i in range(60)]
    points = {r.number: (r.mean("val/ssms"), -r.mean("val/loss")) for r in records}
    expected = {
        i for i, p in points.items() if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points.values())
    }
    assert {record.number for record in pareto_front(records, [UP, DOWN])} == expected


def test_the_front_leaves_out_who_lacks_repeats_or_an_objective():
    short = both(0, 9, 0)
    full = TrialRecord(1, "complete", {}, {f"seed_{i}": {"val/ssms": 1.0, "val/loss": 1.0} for i in range(2)})
    lacking = TrialRecord(2, "complete", {}, {f"seed_{i}": {"val/ssms": 9.0} for i in range(2)})
    assert pareto_front([short, full, lacking], [UP, DOWN]) == [full]
    assert pareto_front([], [UP, DOWN]) == []
