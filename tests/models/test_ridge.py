from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from lightning_ss2a.models.ridge import GCV_PENALTIES, RidgeRegression


def make_rows(count: int, input_width: int = 8, target_width: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, input_width, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, input_width)
    mixing = torch.randn(input_width, target_width, generator=generator, dtype=torch.float64)
    return x + 0.7, x @ mixing + 0.3 * torch.randn(count, target_width, generator=generator, dtype=torch.float64) + 2


def ridge_of(x: Tensor, y: Tensor, penalty: float | Literal["gcv"] = "gcv") -> RidgeRegression:
    ridge = RidgeRegression(x.shape[1], y.shape[1], penalty)
    ridge.update(x, y)
    return ridge


def absolute_penalty(x: Tensor, penalty: float) -> float:
    return penalty * float((x - x.mean(0)).square().sum()) / x.shape[1]


@pytest.mark.parametrize("count", [5, 8, 40])  # fewer rows than columns, as many, more
@pytest.mark.parametrize("penalty", [1e-3, 0.5, 10.0])
def test_equals_sklearn(count: int, penalty: float):
    x, y = make_rows(count)
    fitted = ridge_of(x, y, penalty).fit()
    expected = Ridge(alpha=absolute_penalty(x, penalty)).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(fitted.weight.numpy(), expected.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fitted(x).numpy(), expected.predict(x.numpy()), rtol=1e-8)
    assert fitted.penalty == penalty


@pytest.mark.parametrize("count", [6, 40])
def test_gcv_equals_the_hat_matrix(count: int):
    """The score of Golub, Heath and Wahba from the n x n hat matrix, which the moments never form."""
    x, y = (tensor.numpy() for tensor in make_rows(count))
    centred = x - x.mean(0)

    def score(penalty: float) -> float:
        ridge = absolute_penalty(torch.from_numpy(x), penalty) * np.eye(x.shape[1])
        hat = centred @ np.linalg.solve(centred.T @ centred + ridge, centred.T) + 1 / count
        return float(((y - hat @ y) ** 2).sum() / (count - np.trace(hat)) ** 2)

    scores = [score(penalty) for penalty in GCV_PENALTIES.tolist()]
    fitted = ridge_of(torch.from_numpy(x), torch.from_numpy(y)).fit()
    assert fitted.penalty == pytest.approx(GCV_PENALTIES[int(np.argmin(scores))].item())


def test_gcv_shrinks_noise_and_trusts_signal():
    x, y = make_rows(60)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    assert ridge_of(x, noise).fit().penalty > ridge_of(x, y).fit().penalty


def test_batches_add_up():
    x, y = make_rows(40)
    whole, parts = ridge_of(x, y, 0.1), RidgeRegression(8, 3, 0.1)
    for start, stop in ((0, 7), (7, 7), (7, 30), (30, 40)):
        parts.update(x[start:stop], y[start:stop])
    assert parts.count == whole.count == 40
    first, second = whole.fit(), parts.fit()
    torch.testing.assert_close(first.weight, second.weight)
    torch.testing.assert_close(first.bias, second.bias)
    torch.testing.assert_close(whole.mean_target, y.mean(0))


@pytest.mark.parametrize("count", [3, 5, 8])
@pytest.mark.parametrize("penalty", [1e-4, 1.0, "gcv"])
def test_few_rows_are_decomposed_as_many_are(count: int, penalty: float | Literal["gcv"]):
    """By the rows' own products, or by those of the columns: the map is the same."""
    x, y = make_rows(count)
    parts = RidgeRegression(8, 3, penalty)
    for rows in (slice(0, 1), slice(1, count)):
        parts.update(x[rows], y[rows])
    assert parts.rows_x is not None
    products = ridge_of(x, y, penalty)
    products.rows_x = None
    first, second = parts.fit(), products.fit()
    torch.testing.assert_close(first.weight, second.weight, rtol=1e-7, atol=1e-9)
    assert first.penalty == second.penalty


def test_rows_are_kept_only_while_they_are_few():
    x, y = make_rows(9)
    ridge = ridge_of(x[:8], y[:8])
    assert ridge.rows_x is not None
    ridge.update(x[8:], y[8:])
    assert ridge.rows_x is None


def test_map_takes_the_precision_of_its_input():
    x, y = make_rows(10)
    fitted = ridge_of(x.float(), y.float(), 0.1).fit()
    assert fitted.weight.dtype == torch.float64
    assert fitted.weight.shape == (3, 8)
    assert fitted(x.float()[None]).dtype == torch.float32
    assert fitted(x[None]).shape == (1, 10, 3)


@pytest.mark.parametrize("penalty", [0.1, "gcv"])
@pytest.mark.parametrize("count", [1, 4])
def test_inputs_without_variance_give_the_mean(count: int, penalty: float | Literal["gcv"]):
    x, y = torch.ones(count, 8), torch.arange(3.0 * count).reshape(count, 3)
    torch.testing.assert_close(ridge_of(x, y, penalty).fit()(x), y.mean(0).expand(count, 3))


def test_bad_arguments_are_named():
    x, y = make_rows(10)
    with pytest.raises(ValueError, match="no row was seen"):
        RidgeRegression(8, 3, 0.1).fit()
    for penalty in (0, -1.0, "loo", float("nan")):
        with pytest.raises(ValueError, match="penalty must be above 0 or 'gcv'"):
            RidgeRegression(8, 3, penalty)
    with pytest.raises(ValueError, match=r"shapes \(10, 8\) and \(10, 3\), got \(10, 8\) and \(9, 3\)"):
        RidgeRegression(8, 3).update(x, y[1:])
