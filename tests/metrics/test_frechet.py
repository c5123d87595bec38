import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import FrechetAudioDistance, FrechetExtrapolation
from lightning_ss2a.metrics.functional import frechet_audio_distance, moments
from lightning_ss2a.metrics.functional.frechet import (
    extrapolate_frechet,
    fit_over_inverse,
    gaussian_distance,
    gaussian_of_counted_rows,
    gaussian_of_rows,
    nuclear_norm,
)
from lightning_ss2a.metrics.functional.moments import merge_moments, moments_of, moments_of_draws
from tests.metrics.metric_tester import MetricChecks

pytestmark = pytest.mark.filterwarnings("ignore:FAD of")


def by_scipy(generated: Tensor, reference: Tensor) -> float:
    """The formula of frechet-audio-distance, pytorch-fid and av-benchmark."""
    x, y = generated.double().numpy(), reference.double().numpy()
    root = scipy.linalg.sqrtm((np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)).astype(complex))
    step = x.mean(0) - y.mean(0)
    return float(
        step @ step + np.trace(np.cov(x, rowvar=False)) + np.trace(np.cov(y, rowvar=False)) - 2 * np.trace(root).real
    )


def correlated(rows: int, width: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / width**0.5
    return scale * torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mix + shift


def two_sets(width: int) -> dict[str, Tensor]:
    return {"generated": correlated(20, width, 1, 1.5, 0.3).float(), "reference": correlated(20, width, 2).float()}


def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
    return {"value": by_scipy(inputs["generated"], inputs["reference"])}


class TestMoreRowsThanColumns(MetricChecks):
    make = FrechetAudioDistance
    inputs = two_sets(7)
    reference = staticmethod(reference)


class TestFewerRowsThanColumns(MetricChecks):
    make = FrechetAudioDistance
    inputs = two_sets(33)
    reference = staticmethod(reference)
    tolerance = 1e-5  # what sqrtm of a singular matrix leaves


def test_equals_scipy_to_a_millionth():
    x, y = correlated(700, 64, 1, 1.1, 0.05), correlated(500, 64, 2)
    assert frechet_audio_distance(x, y).item() == pytest.approx(by_scipy(x, y), rel=1e-6)


def test_equals_the_closed_form_of_commuting_covariances():
    # Columns of independent scales: Σ (σ_x - σ_y)² + (μ_x - μ_y)², over the sample's own moments.
    z = torch.linalg.qr(correlated(50, 5, 3) - correlated(50, 5, 3).mean(0)).Q * 49**0.5  # columns of variance 1
    x, y = z * torch.tensor([1.0, 2, 3, 4, 0]) + 5, z * torch.tensor([2.0, 2, 1, 0, 0])
    assert frechet_audio_distance(x, y).item() == pytest.approx(1 + 0 + 4 + 16 + 0 + 5 * 25, rel=1e-6)


@pytest.mark.parametrize(("rows", "width"), [(300, 16), (16, 300), (16, 16), (17, 16), (2, 5)])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_identical_sets_are_0(rows: int, width: int, shift: float):
    x = correlated(rows, width, 4, shift=shift)
    assert frechet_audio_distance(x, x).item() <= 1e-6
    assert frechet_audio_distance(x, x.flip(0)).item() <= 1e-6


def test_dead_and_constant_columns():
    x, y = correlated(200, 12, 5), correlated(200, 12, 6, 1.3)
    x[:, :4], y[:, 2:5] = 0, 7  # as of a ReLU that never fires
    assert frechet_audio_distance(x, y).item() == pytest.approx(by_scipy(x, y), rel=1e-6)
    assert frechet_audio_distance(x, x).item() <= 1e-6


def test_constant_embeddings_are_apart_by_their_means():
    one, other = torch.ones(9, 4), torch.full((5, 4), 3.0)
    assert frechet_audio_distance(one, other).item() == 16
    assert frechet_audio_distance(one, one).item() == 0


def test_rows_and_moments_agree_on_both_sides_of_the_width():
    """15 rows of 16 numbers stand for themselves, 16 become moments; a mix of both is scipy's value, too."""
    y = correlated(400, 16, 7)
    for rows in (15, 16, 17):
        x = correlated(rows, 16, 8, 1.2)
        assert frechet_audio_distance(x, y).item() == pytest.approx(by_scipy(x, y), rel=1e-6)
        metric = FrechetAudioDistance()
        for part in x.split(4):
            metric.update(generated=part)
        metric.update(reference=y[:300])
        metric.update(reference=y[300:])
        torch.testing.assert_close(metric.compute(), frechet_audio_distance(x, y))


def test_moments_merge_without_losing_digits_to_a_large_mean():
    rows = correlated(1000, 6, 9) + 1e7
    merged = merge_moments([moments_of(part) for part in rows.split([1, 7, 92, 900])])
    expected = np.cov((rows - 1e7).numpy(), rowvar=False)
    assert int(merged.size) == 1000
    np.testing.assert_allclose(merged.scatter.numpy() / 999, expected, atol=1e-7)
    np.testing.assert_allclose((merged.mean - 1e7).numpy(), (rows - 1e7).mean(0).numpy(), atol=1e-8)
    naive = (rows.T @ rows - 1000 * torch.outer(rows.mean(0), rows.mean(0))) / 999
    assert np.abs(naive.numpy() - expected).max() > 1e-2  # what a sum of squares would give


def test_state_does_not_grow():
    metric = FrechetAudioDistance()
    for seed in range(20):
        metric.update(correlated(10, 6, seed), correlated(4, 6, seed))
    assert [state.shape for state in metric.generated_scatter] == [(1, 6, 6)]
    assert sum(map(len, metric.generated_rows)) < 6
    assert sum(map(len, metric.reference_rows)) < 6


def test_large_matrices_take_eigenvalues_and_singular_ones_do_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning_ss2a.metrics.functional.frechet._SMALL", 4)
    accuracy = torch.tensor(1e-8, dtype=torch.float64)
    regular, singular = correlated(30, 20, 10), correlated(30, 20, 10)
    singular[:, 3:] = 0
    for matrix in (regular, regular.T, singular, singular.T):
        expected = np.linalg.svd(matrix.numpy(), compute_uv=False).sum()
        assert nuclear_norm(matrix, accuracy).item() == pytest.approx(expected, rel=1e-12)
    calls = []
    monkeypatch.setattr(torch.linalg, "svdvals", lambda matrix: calls.append(matrix) or torch.zeros(1))
    nuclear_norm(regular, accuracy)
    assert not calls
    nuclear_norm(singular, accuracy)
    assert len(calls) == 1


# ----------------------------------------------------------------------------- few rows


@pytest.mark.parametrize("rows", [(1, 9), (9, 1)])
def test_one_row_has_no_covariance(rows: tuple[int, int]):
    x, y = (correlated(count, 4, 11) for count in rows)
    with pytest.warns(UserWarning, match=f"needs at least 2 rows of each set, found {rows[0]} generated and {rows[1]}"):
        assert frechet_audio_distance(x, y).isnan()
    metric = FrechetAudioDistance()
    metric.update(x, y)
    with pytest.warns(UserWarning, match="needs at least 2 rows"):
        assert metric.compute().isnan()


def test_few_rows_are_warned_of():
    x, y = correlated(16, 16, 12), correlated(17, 16, 13)
    with pytest.warns(UserWarning, match="FAD of 16 generated rows of 16 numbers is biased upwards"):
        frechet_audio_distance(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_audio_distance(y, y)


# ------------------------------------------------------------------------ extrapolation

EXTRAPOLATION = FrechetExtrapolation(points=6, least_rows=50, seed=3)


def test_a_line_over_the_inverse_is_found():
    rows = torch.tensor([100, 200, 300, 1000])
    fit = fit_over_inverse(rows, 2 + 70 / rows.double())
    assert (fit.value.item(), fit.slope.item(), fit.r2.item()) == pytest.approx((2, 70, 1))
    values = torch.tensor([3.0, 2.0, 2.5, 1.0], dtype=torch.float64)
    fit = fit_over_inverse(rows, values)
    assert [fit.slope.item(), fit.value.item()] == pytest.approx(
        np.polyfit(1 / rows.numpy(), values.numpy(), 1).tolist()
    )
    assert fit.r2.item() == pytest.approx(np.corrcoef(1 / rows.numpy(), values.numpy())[0, 1] ** 2)


def test_extrapolation_removes_the_bias_of_small_sets():
    """Both sets are of one distribution: the true distance is 0, FAD of 400 rows is not."""
    x, y = correlated(400, 16, 14), correlated(50_000, 16, 15)
    fit = extrapolate_frechet(x, gaussian_of_rows(y), FrechetExtrapolation(points=15, least_rows=50))
    plain = frechet_audio_distance(x, y).item()
    assert plain > 0.05
    assert abs(fit.value.item()) < plain / 4
    assert fit.rows[[0, -1]].tolist() == [50, 400]
    assert fit.distances[-1].item() == pytest.approx(plain, rel=1e-6)


class TestExtrapolated(MetricChecks):
    @staticmethod
    def make() -> FrechetAudioDistance:
        return FrechetAudioDistance(FrechetExtrapolation(points=3, least_rows=5, seed=1))

    inputs = two_sets(3)

    @staticmethod
    def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
        x, y = inputs["generated"], inputs["reference"]
        ordered = x[np.lexsort(x.numpy().T[::-1])]
        generator = torch.Generator().manual_seed(1)
        sizes = (5, 12, 20)
        distances = [by_scipy(ordered[torch.randperm(20, generator=generator)[:size]], y) for size in sizes]
        slope, value = np.polyfit(1 / np.array(sizes), distances, 1)
        return {"fad": by_scipy(x, y), "fad_infinity": float(value), "slope": float(slope)}


def test_too_few_rows_to_extrapolate():
    metric = FrechetAudioDistance(EXTRAPOLATION)
    metric.update(correlated(99, 4, 16), correlated(99, 4, 17))
    with pytest.warns(UserWarning, match=r"twice extrapolation.least_rows = 50 generated rows, found 99"):
        values = metric.compute()
    assert values["fad"].isfinite()
    assert values["fad_infinity"].isnan()


@pytest.mark.parametrize("options", [{"points": 1}, {"least_rows": 1}, {"seed": -1}])
def test_bad_extrapolation_is_named(options: dict):
    with pytest.raises(InputError, match=rf"extrapolation\.{next(iter(options))} must be at least"):
        FrechetExtrapolation(**options)


# ----------------------------------------------------------------------------- bad input


def test_bad_input_is_named():
    x = correlated(9, 4, 18)
    broken = x.clone()
    broken[5, 2] = torch.nan
    metric = FrechetAudioDistance()
    with pytest.raises(InputError, match="generated: row 5 of 9 holds NaN or infinity"):
        metric.update(generated=broken)
    with pytest.raises(InputError, match="reference: row 5 of 9 holds NaN or infinity"):
        frechet_audio_distance(x, broken)
    with pytest.raises(ValueError, match="one width, got generated 4, reference 3"):
        frechet_audio_distance(x, x[:, :3])
    metric.update(generated=x)
    with pytest.raises(ValueError, match="one width, got reference 3, earlier generated 4"):
        metric.update(reference=x[:, :3])
    with pytest.raises(ValueError, match=r"generated must be \[rows, width\], got \(4,\)"):
        metric.update(generated=x[0])
    with pytest.raises(ValueError, match="needs generated, reference or both"):
        metric.update()


@pytest.mark.parametrize("rows", [6, 40])
def test_counted_rows_are_rows_that_are_there_so_often(rows):
    generator = torch.Generator().manual_seed(rows)
    sides = [
        (torch.randn(rows, 8, generator=generator), torch.randint(0, 4, (rows,), generator=generator)) for _ in "ab"
    ]
    repeated = [each.repeat_interleave(counts, dim=0) for each, counts in sides]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = float(frechet_audio_distance(*repeated))
    found = gaussian_distance(*(gaussian_of_counted_rows(*side) for side in sides))
    assert float(found) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("at_once", [1, 2**23])
def test_moments_of_draws_are_those_of_the_groups_rows_repeated(monkeypatch: pytest.MonkeyPatch, at_once: int):
    monkeypatch.setattr(moments, "_NUMBERS", at_once)  # in parts, or all together
    rows = correlated(11, 4, 3, shift=1e6)
    owners = torch.tensor([0, 0, 0, 2, 2, 3, 4, 4, 4, 4, 4])  # group 1 has none
    rows[5] = torch.nan  # nor is group 3 ever drawn
    counts = torch.tensor([[1, 1, 1, 0, 1], [0, 2, 3, 0, 1], [0, 4, 0, 0, 0]])
    found = [*moments_of_draws(rows, owners, counts)]
    for drawn, number in zip(found[:2], counts, strict=False):
        wanted = moments_of(rows.repeat_interleave(number[owners], dim=0))
        assert drawn.size == wanted.size
        torch.testing.assert_close(drawn.mean, wanted.mean, rtol=1e-14, atol=0)
        torch.testing.assert_close(drawn.scatter, wanted.scatter, rtol=1e-8, atol=1e-8)
    assert found[2].size == 0
    assert found[2].mean.isnan().all()


def test_what_is_left_of_rounding_is_no_distance():
    """Two sets of one distribution, computed in two ways."""
    rows = correlated(500, 6, 4, shift=3.0)
    turned = rows.flip(0)
    assert float(gaussian_distance(gaussian_of_rows(rows), gaussian_of_rows(turned))) == 0
