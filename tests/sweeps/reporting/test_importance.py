import sys

import pytest

from lightning_ss2a.sweeps.records import TrialRecord
from lightning_ss2a.sweeps.reporting.importance import find_importances
from lightning_ss2a.sweeps.space import Parameter
from tests.sweeps.studies import BOTTLENECK, LOSS, LR, SSMS, realistic, study_of

X = {"x": Parameter(low=0, high=9), "y": Parameter(choices=[1, 2])}


def trials(points: list[dict], values: list[float]) -> list[TrialRecord]:
    return [
        TrialRecord(i, "complete", point, {"seed_0": {"val/ssms": value}})
        for i, (point, value) in enumerate(zip(points, values, strict=True))
    ]


def test_what_matters_comes_first():
    records, space = realistic()
    study = study_of(records, [SSMS, LOSS], space)
    found, loss = find_importances(study, [SSMS, LOSS], space)
    assert next(iter(found.shares)) == LR
    assert found.shares[LR] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.trials == 20
    assert found.left_out == (BOTTLENECK,)
    assert next(iter(loss.shares)) == "model.manifold.dropout"
    assert find_importances(study, [SSMS, LOSS], space) == [found, loss]


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
    (found,) = find_importances(study_of(records, [SSMS], X), [SSMS], X)
    assert (found.shares, found.reason) == ({}, reason)


def test_nothing_is_printed(capsys):
    points = [{"x": i, "y": y} for i in range(10) for y in (1, 2)]
    study = study_of(trials(points, [point["x"] for point in points]), [SSMS], X)
    capsys.readouterr()
    (found,) = find_importances(study, [SSMS], X)
    assert next(iter(found.shares)) == "x"
    assert capsys.readouterr() == ("", "")


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    points = [{"x": i, "y": 1 + i % 2} for i in range(6)]
    study = study_of(trials(points, list(range(6))), [SSMS], X)
    for name in [name for name in sys.modules if name.startswith("sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    for name in [name for name in sys.modules if name.startswith("optuna.importance._fanova")]:
        monkeypatch.delitem(sys.modules, name)
    (found,) = find_importances(study, [SSMS], X)
    assert "pip install 'lightning-ss2a[sweep]'" in found.reason
