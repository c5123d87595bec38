import sys

import pytest

from lightning_ss2a.sweeps.reporting.importance import find_importances
from lightning_ss2a.sweeps.running.records import TrialRecord
from lightning_ss2a.sweeps.space import Parameter
from tests.sweeps.studies import BOTTLENECK, LOSS, LR, SSMS, realistic

X = {"x": Parameter(low=0, high=9), "y": Parameter(choices=[1, 2])}


def trials(points: list[dict], values: list[float]) -> list[TrialRecord]:
    return [
        TrialRecord(i, "complete", point, {"seed_0": {"val/ssms": value}})
        for i, (point, value) in enumerate(zip(points, values, strict=True))
    ]


def test_what_matters_comes_first():
    pytest.importorskip("optuna")
    records, space = realistic()
    found, loss = find_importances(records, [SSMS, LOSS], space)
    assert next(iter(found.shares)) == LR
    assert found.shares[LR] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.trials == 20
    assert found.left_out == (BOTTLENECK,)
    assert next(iter(loss.shares)) == "model.manifold.dropout"
    assert find_importances(records, [SSMS, LOSS], space) == [found, loss]


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([], "needs 4 complete trials, there are 0"),
        (trials([{"x": i, "y": 1} for i in range(6)], [2.0] * 6), "all trials have the same value"),
        (trials([{"x": 1, "y": 1}] * 6, [1.0, 2, 3, 4, 5, 6]), "no parameter is active in every trial and varies"),
        (trials([{"x": 1}, {"y": 1}] * 3, [1.0, 2, 3, 4, 5, 6]), "no parameter is active in every trial and varies"),
    ],
)
def test_a_reason_and_no_traceback(records, reason):
    (found,) = find_importances(records, [SSMS], X)
    assert (found.shares, found.reason) == ({}, reason)


def test_values_outside_of_a_range_narrowed_since(capsys):
    pytest.importorskip("optuna")
    points = [{"x": i, "y": y} for i in range(20) for y in (1, 3)]
    (found,) = find_importances(trials(points, [point["x"] for point in points]), [SSMS], X)
    assert next(iter(found.shares)) == "x"
    assert capsys.readouterr() == ("", "")


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    points = [{"x": i, "y": 1 + i % 2} for i in range(6)]
    (found,) = find_importances(trials(points, list(range(6))), [SSMS], X)
    assert found.reason == "optuna is not installed: pip install 'lightning-ss2a[sweep]'"
