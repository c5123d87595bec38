import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, softmax
from scipy.stats import entropy
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import PairedKL
from lightning_ss2a.metrics.functional import paired_kl
from tests.metrics.metric_tester import MetricChecks

GENERATED, REFERENCE = 2 * torch.randn(2, 20, 9, generator=torch.Generator().manual_seed(1))
INPUTS = {"generated": GENERATED, "reference": REFERENCE}


def rows_by_scipy(inputs: dict[str, Tensor]) -> list[float]:
    q, p = (softmax(inputs[name].double().numpy(), axis=1) for name in ("generated", "reference"))
    return [float(entropy(p_row, q_row)) for p_row, q_row in zip(p, q, strict=True)]


class TestPairedKL(MetricChecks):
    make = PairedKL
    inputs = INPUTS

    @staticmethod
    def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
        return {"value": float(np.mean(rows_by_scipy(inputs)))}


class TestSigmoid(MetricChecks):
    make = functools.partial(PairedKL, activation="sigmoid")
    inputs = INPUTS

    @staticmethod
    def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
        q, p = (expit(inputs[name].double().numpy()) for name in ("generated", "reference"))
        return {"value": float((p * np.log(p / q)).sum(1).mean())}


def test_rows_equal_scipy_and_torch():
    rows = paired_kl(GENERATED, REFERENCE, reduction="none")
    assert rows.tolist() == pytest.approx(rows_by_scipy(INPUTS))
    torch_mean = F.kl_div(
        GENERATED.log_softmax(1), REFERENCE.log_softmax(1), reduction="batchmean", log_target=True
    )  # as av-benchmark computes it
    torch.testing.assert_close(paired_kl(GENERATED, REFERENCE), torch_mean)


def test_a_missing_class_is_dear_and_an_added_one_cheap():
    one, two = torch.tensor([[0.98, 0.01, 0.01]]).log(), torch.tensor([[0.495, 0.495, 0.01]]).log()
    assert paired_kl(generated=one, reference=two) > 2 * paired_kl(generated=two, reference=one)


def test_extremes():
    assert paired_kl(REFERENCE, REFERENCE) == 0
    assert paired_kl(REFERENCE + 5, REFERENCE).item() == pytest.approx(0, abs=1e-7)  # softmax knows no constant
    assert paired_kl(-1000 * torch.eye(3), 1000 * torch.eye(3)).isfinite()
    assert paired_kl(REFERENCE + 5, REFERENCE, "sigmoid") < 0  # no divergence


def test_bad_input_is_named():
    broken = REFERENCE.clone()
    broken[7, 1] = torch.inf
    with pytest.raises(InputError, match="reference: row 7 of 20 holds NaN or infinity"):
        PairedKL().update(GENERATED, broken)
    with pytest.raises(ValueError, match=r"generated and reference must have one shape .* \(20, 9\) and \(20, 8\)"):
        paired_kl(GENERATED, REFERENCE[:, :8])
    with pytest.raises(ValueError, match="activation must be one of softmax, sigmoid, got 'relu'"):
        PairedKL("relu")
    with pytest.raises(ValueError, match="activation must be one of softmax, sigmoid, got 'relu'"):
        paired_kl(GENERATED, REFERENCE, "relu")
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none', got 'sum'"):
        paired_kl(GENERATED, REFERENCE, reduction="sum")
