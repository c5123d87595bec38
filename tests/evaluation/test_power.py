"""How many items a measure needs: by hand, against a formula, and where there is nothing to find."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from lightning_ss2a.evaluation.measures import FAD, KAD
from lightning_ss2a.evaluation.power import (
    Power,
    draw_exchanges,
    draw_items,
    power,
    power_of_items,
    resampling,
    scores_of_set,
)
from lightning_ss2a.metrics.functional import frechet_audio_distance, kernel_audio_distance


def test_power_of_four_items_by_hand():
    better, worse = np.array([4.0, 2.0, 0.0, 3.0]), np.array([1.0, 1.0, 1.0, 2.0])  # 3, 1, -1 and 1 apart
    drawn, counts = np.array([[0, 1], [2, 3]]), np.array([[2, 0], [1, 1], [0, 2]])
    # 2 apart on the first draw, 3, 2 and 1 resampled; 0 on the second one, -1, 0 and 1 resampled.
    assert power_of_items(better, worse, drawn, counts) == Power(0.75, 0.5, 0.0, 2, 2)
    assert power_of_items(worse, better, drawn, counts) == Power(0.25, 0.0, 0.5, 2, 2)
    exchanged = np.array([[True, True], [True, False]])  # -2 apart, and (1 + 1) / 2
    assert power_of_items(better, worse, drawn, counts, exchanged) == Power(0.5, 0.5, 0.5, 2, 2)


def test_draws_without_an_interval_count_for_who_is_ahead_only():
    assert power([1.0, -1.0, 1.0, 1.0], [np.array([0.5, 1.5])]) == Power(0.75, 1.0, 0.0, 4, 1)


@pytest.mark.parametrize("items", [32, 128])
def test_power_is_that_of_the_normal_test(items: int):
    pool = 20_000
    worse = np.zeros(pool)
    better = 0.3 + np.random.default_rng(0).normal(size=pool)
    drawn = draw_items(pool, items, draws=800, seed=1)
    found = power_of_items(better, worse, drawn, resampling(items, 500, seed=2))
    assert found.significant == pytest.approx(norm.cdf(0.3 * items**0.5 - norm.ppf(0.975)), abs=0.05)
    assert found.ahead == pytest.approx(norm.cdf(0.3 * items**0.5), abs=0.03)


def test_equal_methods_differ_in_one_of_twenty_draws():
    better = np.random.default_rng(0).normal(size=600) + 0.5
    drawn = draw_items(600, 128, draws=2000, seed=1)
    exchanged = draw_exchanges(*drawn.shape, seed=2)
    found = power_of_items(better, np.zeros(600), drawn, resampling(128, 500, seed=3), exchanged)
    assert found.significant + found.reversed == pytest.approx(0.05, abs=0.015)
    assert found.significant == pytest.approx(found.reversed, abs=0.015)
    assert found.ahead == pytest.approx(0.5, abs=0.03)


def test_no_item_is_drawn_twice():
    drawn = draw_items(10, 10, draws=3, seed=0)
    assert (np.sort(drawn) == np.arange(10)).all()
    assert (drawn[0] != drawn[1]).any()
    with pytest.raises(ValueError, match="11 items cannot be drawn from a pool of 10"):
        draw_items(10, 11, draws=1, seed=0)


@pytest.mark.parametrize("name", ["FAD", "KAD"])
def test_sets_are_scored_as_if_their_rows_were_repeated(name: str):
    torch.manual_seed(0)
    generated, reference = torch.rand(12, 4), torch.rand(12, 4)
    counts = resampling(12, 3, seed=0)

    def expected(x: torch.Tensor, y: torch.Tensor) -> float:
        return float(frechet_audio_distance(x, y) if name == "FAD" else kernel_audio_distance(x, y, bandwidth=0.7))

    found = scores_of_set(FAD("ear") if name == "FAD" else KAD("ear", 0.7), generated, reference, counts)
    drawn = [torch.from_numpy(row) for row in counts]
    repeated = [[side.repeat_interleave(row, dim=0) for side in (generated, reference)] for row in drawn]
    wanted = [expected(generated, reference), *(expected(*both) for both in repeated)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
