import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import paired_cosine_distances
from torch import Tensor

from lightning_ss2a.metrics import MeanCosine
from lightning_ss2a.metrics.functional import mean_cosine
from tests.metrics.metric_tester import MetricTester

PREDICTION, TARGET = torch.randn(2, 20, 9, generator=torch.Generator().manual_seed(0))
INPUTS = {"prediction": PREDICTION, "target": 0.5 * PREDICTION + TARGET}


def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
    arrays = (inputs[name].double().numpy() for name in ("prediction", "target"))
    return {"value": float(np.mean(1 - paired_cosine_distances(*arrays)))}


class TestMeanCosine(MetricTester):
    make = MeanCosine
    inputs = INPUTS
    reference = staticmethod(reference)


def test_functional_equals_class():
    metric = MeanCosine()
    metric.update(PREDICTION, TARGET)
    torch.testing.assert_close(mean_cosine(PREDICTION, TARGET), metric.compute())
    assert MeanCosine.higher_is_better is True


def test_by_hand():
    rows = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert mean_cosine(rows, torch.tensor([[1.0, 0.0], [0.0, -2.0], [1.0, 0.0]])) == 0  # (1 - 1 + 0) / 3
    assert mean_cosine(rows[:2], rows[:2]) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_rows_are_not_hidden(bad: float):
    metric = MeanCosine()
    broken = PREDICTION.clone()
    broken[3, 4] = bad
    metric.update(broken, TARGET)
    metric.update(PREDICTION, TARGET)
    assert metric.compute().isnan()
    metric.reset()
    metric.update(PREDICTION, TARGET)
    assert metric.compute().isfinite()


def test_bfloat16_and_large_norms():
    assert mean_cosine(PREDICTION.bfloat16(), PREDICTION.bfloat16()).item() == pytest.approx(1)
    assert mean_cosine(1e30 * PREDICTION, PREDICTION).item() == pytest.approx(1)


@pytest.mark.parametrize("target", [torch.ones(20, 8), torch.ones(19, 9), torch.ones(20)])
def test_shapes_are_checked(target: Tensor):
    with pytest.raises(ValueError, match=r"prediction and target must have one shape \[rows, width\], got \(20, 9\)"):
        MeanCosine().update(PREDICTION, target)
