"""A mixture of two Gaussians: against scikit-learn, and its separation and boundary by hand."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from lightning_ss2a.callbacks.mean_teacher.two_groups import TwoGroups, best_split, fit_two_groups
from tests.callbacks.mean_teacher.mixtures import STRONG, WEAK, bells


@pytest.mark.parametrize(("teacher", "rate"), [(STRONG, 0.05), (STRONG, 0.8), (WEAK, 0.35), (WEAK, 0.5)])
def test_the_mixture_is_that_of_scikit_learn(teacher, rate):
    ordered = np.sort(bells(2_000, rate, 0, teacher)[0].astype(np.float64))
    expected = GaussianMixture(2, tol=1e-8, max_iter=2_000, random_state=0).fit(ordered[:, None])
    low, high = np.argsort(expected.means_[:, 0])
    found = fit_two_groups(ordered)
    assert found.share == pytest.approx(expected.weights_[[low, high]], abs=1e-3)
    assert found.mean == pytest.approx(expected.means_[[low, high], 0], abs=1e-3)
    assert found.deviation == pytest.approx(np.sqrt(expected.covariances_[[low, high], 0, 0]), abs=1e-3)
    probability = expected.predict_proba([[found.boundary]])[0]
    assert probability == pytest.approx([0.5, 0.5], abs=0.01)


def test_separation_and_boundary_by_hand():
    groups = TwoGroups((0.3, 0.7), (0.1, 0.6), (0.03, 0.04))
    assert groups.separation == pytest.approx(sqrt(2) * 0.5 / 0.05)
    densities = [
        share * norm(mean, deviation).pdf(groups.boundary)
        for share, mean, deviation in zip(groups.share, groups.mean, groups.deviation, strict=True)
    ]
    assert densities[0] == pytest.approx(densities[1])
    assert TwoGroups((0.5, 0.5), (0.2, 0.6), (0.1, 0.1)).boundary == pytest.approx(0.4)


def test_a_group_within_another_has_no_boundary():
    assert TwoGroups((0.999, 0.001), (0.0, 1.5), (1.0, 0.3)).boundary is None


def test_the_best_split_is_that_of_all_splits():
    ordered = np.sort(np.random.default_rng(0).normal(size=60) ** 3)
    squares = [len(x) * x.var() + len(y) * y.var() for x, y in (np.split(ordered, [i]) for i in range(1, 60))]
    assert best_split(ordered) == 1 + int(np.argmin(squares))


@pytest.mark.parametrize("values", [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.1, 0.2, 0.3], [-1.0, 1.0]])
def test_hardly_any_values_are_grouped_too(values: list[float]):
    groups = fit_two_groups(np.array(values))
    assert sum(groups.share) == pytest.approx(1)
    assert min(values) <= groups.mean[0] <= groups.mean[1] <= max(values)
    assert min(groups.deviation) > 0


@pytest.mark.parametrize("value", [0.0, 0.45, 0.7, 1.0])
@pytest.mark.parametrize("teacher", [STRONG, WEAK])
def test_many_equal_values_are_no_group(teacher, value: float):
    """A third of all: one value more is all that they are."""
    ordered = np.sort(bells(2_000, 0.4, 0, teacher)[0].astype(np.float64))
    equal = np.full(1_000, value)
    found, expected = fit_two_groups(np.sort(np.concatenate([ordered, equal]))), fit_two_groups(ordered)
    assert found.mean == pytest.approx(expected.mean, abs=0.01)
    assert found.deviation == pytest.approx(expected.deviation, abs=0.01)
    assert found.share == pytest.approx(expected.share, abs=0.02)
