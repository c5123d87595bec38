import numpy as np
import torch
from sklearn.metrics.pairwise import paired_cosine_distances
from torch import Tensor

from lightning_ss2a.metrics import CLIPScore
from lightning_ss2a.metrics.functional import clip_score
from tests.metrics.metric_tester import MetricTester

TRANSLATED, VISUAL = torch.randn(2, 20, 9, generator=torch.Generator().manual_seed(1))
INPUTS = {"translated_audio": TRANSLATED + VISUAL, "visual": VISUAL}


def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
    arrays = (inputs[name].double().numpy() for name in ("translated_audio", "visual"))
    return {"value": float(100 * np.mean(1 - paired_cosine_distances(*arrays)))}


class TestCLIPScore(MetricTester):
    make = CLIPScore
    inputs = INPUTS
    reference = staticmethod(reference)


def test_functional_equals_class():
    metric = CLIPScore()
    metric.update(TRANSLATED, VISUAL)
    torch.testing.assert_close(clip_score(TRANSLATED, VISUAL), metric.compute())
    assert CLIPScore.higher_is_better is True


def test_extremes():
    assert clip_score(2 * VISUAL, VISUAL).item() == 100
    assert clip_score(-VISUAL, VISUAL).item() == -100
    assert clip_score(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])) == 0
