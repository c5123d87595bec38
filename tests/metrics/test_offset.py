import functools

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import Desynchronization, WeightedMeanAbsoluteOffset
from lightning_ss2a.metrics.functional import desynchronization, first_and_last, weighted_mean_absolute_offset
from lightning_ss2a.metrics.functional.offset import OFFSETS
from tests.metrics.metric_tester import MetricChecks

GRID = np.linspace(-2, 2, 21)
LOGITS = 3 * torch.randn(20, 21, generator=torch.Generator().manual_seed(1))
WINDOWS = torch.randn(20, 2, 21, generator=torch.Generator().manual_seed(2))


def offsets_by_hand(logits: Tensor, k: int, normalize: bool = True) -> list[float]:
    values = []
    for row in softmax(logits.double().numpy(), axis=1):
        top = sorted(zip(row, abs(GRID), strict=True), reverse=True)[:k]
        values.append(sum(p * o for p, o in top) / (sum(p for p, _ in top) if normalize else 1))
    return values


class TestWeightedMeanAbsoluteOffset(MetricChecks):
    make = functools.partial(WeightedMeanAbsoluteOffset, top_k=3)
    inputs = {"logits": LOGITS}  # noqa: RUF012

    @staticmethod
    def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
        return {"value": float(np.mean(offsets_by_hand(inputs["logits"], 3)))}


class TestDesynchronization(MetricChecks):
    make = Desynchronization
    inputs = {"logits": WINDOWS}  # noqa: RUF012

    @staticmethod
    def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
        return {"value": float(np.mean(abs(GRID[inputs["logits"].numpy().argmax(2)])))}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("k", [1, 2, 5, 21])
def test_weighted_offsets_equal_a_loop(k: int, normalize: bool):
    found = weighted_mean_absolute_offset(LOGITS, k, normalize=normalize, reduction="none")
    assert found.tolist() == pytest.approx(offsets_by_hand(LOGITS, k, normalize))
    metric = WeightedMeanAbsoluteOffset(k, normalize=normalize)
    metric.update(LOGITS)
    torch.testing.assert_close(metric.compute(), weighted_mean_absolute_offset(LOGITS, k, normalize=normalize))


def test_of_equally_likely_offsets_the_first_count():
    nothing = torch.zeros(1, 21)
    assert weighted_mean_absolute_offset(nothing, 5).item() == pytest.approx(1.6)  # -2.0, -1.8, -1.6, -1.4 and -1.2 s
    assert weighted_mean_absolute_offset(nothing, 21).item() == pytest.approx(abs(GRID).mean())
    assert desynchronization(nothing[None]).item() == 2
    two = torch.full((1, 21), -9.0)
    two[0, [4, 12]] = 1.0  # -1.2 and 0.4 s
    assert weighted_mean_absolute_offset(two, 1).item() == desynchronization(two[None]).item() == pytest.approx(1.2)


def test_one_class_is_the_likeliest_and_all_are_the_mean():
    likeliest = weighted_mean_absolute_offset(LOGITS, 1, reduction="none")
    torch.testing.assert_close(likeliest, desynchronization(LOGITS.unsqueeze(1), reduction="none"))
    expected = softmax(LOGITS.double().numpy(), axis=1) @ abs(GRID)
    assert weighted_mean_absolute_offset(LOGITS, 21, reduction="none").tolist() == pytest.approx(expected.tolist())


def test_an_unsure_classifier_seems_synchronous_without_normalizing():
    flat = torch.zeros(1, 21)
    assert weighted_mean_absolute_offset(flat, 5).item() == pytest.approx(1.6)  # of equal classes the first five
    assert weighted_mean_absolute_offset(flat, 5, normalize=False).item() == pytest.approx(1.6 * 5 / 21)


def test_sure_classes_give_their_offset():
    sure = 1000 * torch.eye(21)
    torch.testing.assert_close(
        weighted_mean_absolute_offset(sure, 5, reduction="none"), torch.tensor(GRID).abs().float()
    )
    assert desynchronization(sure[10].expand(3, 2, 21)) == 0
    np.testing.assert_allclose(OFFSETS, GRID, atol=1e-15)


def test_windows_are_the_first_and_the_last_segments():
    segments = torch.arange(24).expand(3, 24)
    windows = first_and_last(segments)
    assert windows.shape == (3, 2, 14)
    assert windows[1, 0].tolist() == list(range(14))
    assert windows[1, 1].tolist() == list(range(10, 24))
    with pytest.raises(ValueError, match="a window has 14 segments, got 13: the clip is too short"):
        first_and_last(segments[:, :13])


@pytest.mark.parametrize("function", [weighted_mean_absolute_offset, desynchronization])
def test_bad_arguments_are_named(function):
    logits = LOGITS if function is weighted_mean_absolute_offset else WINDOWS
    with pytest.raises(ValueError, match=r"one class for each of 21 offsets, got \(20, (2, )?20\)"):
        function(logits[..., :20])
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none', got 'sum'"):
        function(logits, reduction="sum")
    with pytest.raises(ValueError, match=r"logits must be \["):
        function(logits[0])


def test_bad_options_and_rows_are_named():
    with pytest.raises(ValueError, match=r"top_k must be in 1\.\.21, the number of classes, got 22"):
        weighted_mean_absolute_offset(LOGITS, 22)
    with pytest.raises(ValueError, match=r"top_k must be in 1\.\.21, the number of classes, got 0"):
        WeightedMeanAbsoluteOffset(0)
    with pytest.raises(ValueError, match="at least one window"):
        Desynchronization().update(WINDOWS[:, :0])
    for metric, logits in ((WeightedMeanAbsoluteOffset(), LOGITS), (Desynchronization(), WINDOWS)):
        broken = logits.clone()
        broken[4, ..., 0] = torch.nan
        with pytest.raises(InputError, match="logits: row 4 of 20 holds NaN or infinity"):
            metric.update(broken)
    assert desynchronization(broken, reduction="none").isnan().nonzero().tolist() == [[4]]
