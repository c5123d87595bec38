import numpy as np
import pytest
import torch
from sklearn.preprocessing import normalize
from torch import Tensor

from lightning_ss2a.metrics import ModalityGap
from lightning_ss2a.metrics.functional import modality_gap
from tests.metrics.metric_tester import MetricTester

VISUAL, AUDIO = torch.randn(2, 20, 9, generator=torch.Generator().manual_seed(2))
INPUTS = {"visual_embedding": VISUAL + 1, "audio_embedding": AUDIO}


def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
    means = [normalize(inputs[f"{name}_embedding"].double().numpy()).mean(0) for name in ("visual", "audio")]
    return {"value": float(np.linalg.norm(means[0] - means[1]))}


class TestModalityGap(MetricTester):
    make = ModalityGap
    inputs = INPUTS
    reference = staticmethod(reference)


def test_functional_equals_class():
    metric = ModalityGap()
    metric.update(VISUAL, AUDIO)
    torch.testing.assert_close(modality_gap(VISUAL, AUDIO), metric.compute())
    assert ModalityGap.higher_is_better is False


def test_extremes():
    east = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    assert modality_gap(east, -east) == 2
    assert modality_gap(east, 5 * east) == 0
    # Pairs may differ: only the means count.
    assert modality_gap(VISUAL, VISUAL.flip(0)).item() == pytest.approx(0, abs=1e-7)


def test_broken_rows_are_not_hidden():
    metric = ModalityGap()
    metric.update(VISUAL.clone().fill_(torch.nan), AUDIO)
    assert metric.compute().isnan()


def test_state_does_not_grow():
    metric = ModalityGap()
    for _ in range(5):
        metric.update(VISUAL, AUDIO)
    assert [state.shape for state in metric.difference] == [(1, 9)]


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"one shape \[rows, width\], got \(20, 9\) and \(20, 8\)"):
        ModalityGap().update(VISUAL, AUDIO[:, :8])
