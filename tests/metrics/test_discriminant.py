import functools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import DiscriminantTest
from lightning_ss2a.metrics.functional import discriminant_test
from tests.metrics.metric_tester import MetricChecks

GROUPS = torch.tensor([0, 1, 1, 4] * 5)
EMBEDDING = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)) + 0.5 * GROUPS.unsqueeze(1)
INPUTS = {"embedding": EMBEDDING, "group_index": GROUPS}


def by_scipy(inputs: dict[str, Tensor], equal: bool) -> dict[str, float]:
    """Bayes' rule with normal densities of one pooled covariance: what the wide method is with all its components.

    scikit-learn's discriminant divides the covariance by N instead of N - T since its version 1.9.
    """
    x, y = inputs["embedding"].double().numpy(), inputs["group_index"].numpy()
    names, own, counts = np.unique(y, return_inverse=True, return_counts=True)
    means = np.stack([x[y == name].mean(0) for name in names])
    pooled = (x - means[own]).T @ (x - means[own]) / (len(x) - len(names))
    prior = np.full(len(names), 1 / len(names)) if equal else counts / len(x)
    joint = prior * np.stack([multivariate_normal(mean, pooled).pdf(x) for mean in means], 1)
    posterior = joint / joint.sum(1, keepdims=True)
    deviance, null = (-2 * np.log(p).sum() for p in (posterior[np.arange(len(x)), own], prior[own]))
    return {
        "entropy_r2": float(1 - deviance / null),
        "minus_two_log_likelihood": float(deviance),
        "misclassified": float((posterior.argmax(1) != own).mean()),
    }


class TestDiscriminantTest(MetricChecks):
    make = functools.partial(DiscriminantTest, retained=1.0)
    inputs = INPUTS
    reference = staticmethod(functools.partial(by_scipy, equal=True))


class TestProportional(MetricChecks):
    make = functools.partial(DiscriminantTest, prior="proportional", retained=1.0)
    inputs = INPUTS
    reference = staticmethod(functools.partial(by_scipy, equal=False))


def wide_by_numpy(x: np.ndarray, y: np.ndarray, retained: float) -> tuple[float, int]:
    """The documented steps of the wide method for two groups, one by one; -2 log-likelihood, and components kept."""
    groups = [x[y == 0], x[y == 1]]
    residuals = np.concatenate([g - g.mean(0) for g in groups])
    deviation = np.sqrt((residuals**2).sum(0) / (len(x) - 2))
    _, s, vt = np.linalg.svd(residuals / deviation, full_matrices=False)
    # The last sum may be rounded to just below 1.
    kept = min(int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), retained)) + 1, len(s))
    scores = [(g / deviation) @ vt[:kept].T for g in groups]
    variance = s[:kept] ** 2 / (len(x) - 2)
    total = 0.0
    for own, rows in enumerate(scores):
        distance = np.stack([((rows - other.mean(0)) ** 2 / variance).sum(1) for other in scores])
        total += 2 * np.log1p(np.exp((distance[own] - distance[1 - own]) / 2)).sum()
    return float(total), kept


@pytest.mark.parametrize(("rows", "width", "retained"), [(40, 100, 0.9999), (40, 100, 0.5), (60, 12, 0.9), (60, 12, 1)])
def test_wide_method_equals_its_documented_steps(rows: int, width: int, retained: float):
    generator = torch.Generator().manual_seed(width)
    scales = torch.logspace(0, -2, width)
    group = torch.arange(rows) % 2
    x = (torch.randn(rows, width, generator=generator) + 0.3 * group.unsqueeze(1)) * scales + 5
    expected, kept = wide_by_numpy(x.double().numpy(), group.numpy(), retained)
    found = discriminant_test(x, group, retained=retained)
    assert found.minus_two_log_likelihood.item() == pytest.approx(expected, rel=1e-5)
    assert found.entropy_r2.item() == pytest.approx(1 - expected / (2 * rows * np.log(2)), rel=1e-5)
    assert retained < 0.99 or kept == min(rows - 2, width)


def test_groups_apart_are_told_and_equal_ones_are_not():
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(3))
    group = torch.arange(200) % 2
    apart = discriminant_test(x + 50 * group.unsqueeze(1), group)
    assert apart.entropy_r2.item() == pytest.approx(1)
    assert apart.misclassified == 0
    same = discriminant_test(x.repeat_interleave(2, 0), torch.arange(400) % 2)  # every row in both
    assert same.entropy_r2.item() == pytest.approx(0, abs=1e-6)
    assert same.minus_two_log_likelihood.item() == pytest.approx(2 * 400 * np.log(2))


def test_scale_does_not_matter():
    scale = torch.tensor([1e-3, 1.0, 1e4])
    torch.testing.assert_close(discriminant_test(EMBEDDING * scale, GROUPS), discriminant_test(EMBEDDING, GROUPS))


def test_constant_columns():
    group = torch.arange(20) % 2
    constant = torch.full((20, 2), 0.3)
    nothing = discriminant_test(constant, group)
    assert (nothing.entropy_r2, nothing.misclassified) == (0, 0.5)
    everything = discriminant_test(constant + group.unsqueeze(1), group)
    assert (everything.entropy_r2, everything.minus_two_log_likelihood) == (1, 0)
    with_constant = discriminant_test(torch.cat([EMBEDDING, constant], 1), GROUPS)
    torch.testing.assert_close(with_constant, discriminant_test(EMBEDDING, GROUPS))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_too_few_rows_or_groups_have_no_value(rows: int):
    assert discriminant_test(EMBEDDING[:rows], torch.arange(rows)).entropy_r2.isnan()
    assert discriminant_test(EMBEDDING, torch.zeros_like(GROUPS)).entropy_r2.isnan()


def test_bad_input_is_named():
    broken = EMBEDDING.clone()
    broken[9, 1] = torch.nan
    for function in (discriminant_test, DiscriminantTest().update):
        with pytest.raises(InputError, match="embedding: row 9 of 20 holds NaN or infinity"):
            function(broken, GROUPS)
        with pytest.raises(ValueError, match=r"group_index must be \[20\], one number a row"):
            function(EMBEDDING, GROUPS[:4])
    with pytest.raises(ValueError, match="prior must be one of equal, proportional, got 'flat'"):
        DiscriminantTest(prior="flat")
    with pytest.raises(ValueError, match=r"retained must be in \(0, 1\], got 0"):
        DiscriminantTest(retained=0)
