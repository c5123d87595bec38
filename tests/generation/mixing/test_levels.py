"""Weights as sets of sources: against the integral that they stand for."""

import pytest
import torch

from lightning_ss2a.generation.mixing.levels import levels_of


@pytest.mark.parametrize(
    ("weights", "sets", "shares"),
    [
        ([1.0], [[1]], [1.0]),
        ([3.0, 3.0], [[1, 1]], [1.0]),
        ([1.0, 0.5], [[1, 1], [1, 0]], [0.5, 0.5]),
        ([0.0, 2.0, 0.5], [[0, 1, 1], [0, 1, 0]], [0.25, 0.75]),
        ([0.2, 1.0, 0.6], [[1, 1, 1], [0, 1, 1], [0, 1, 0]], [0.2, 0.4, 0.4]),
    ],
)
def test_a_source_is_in_the_sets_for_the_part_that_its_weight_is_of_the_largest(weights, sets, shares):
    levels = levels_of(weights)
    assert levels.sets.int().tolist() == sets
    torch.testing.assert_close(levels.shares, torch.tensor(shares))


def test_it_is_the_integral_over_levels_of_a_function_of_sets():
    weights = [0.7, 2.1, 0.35, 1.4]
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(16, generator=generator)  # of every set of four sources
    levels = levels_of(weights)
    numbers = 2 ** torch.arange(4)
    found = (values[(levels.sets * numbers).sum(1)] * levels.shares).sum()
    steps = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    above = torch.tensor(weights).double()[:, None] / 2.1 >= steps  # [sources, steps]
    expected = values[(above.T * numbers).sum(1)].mean()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_sources_of_equal_share_add_up_as_they_should():
    """Of a sum over sources, the average over sets is the weighted sum."""
    weights = [0.3, 0.9, 0.6]
    levels = levels_of(weights)
    each = torch.tensor([1.0, 10.0, 100.0])
    found = ((levels.sets * each).sum(1) * levels.shares).sum()
    torch.testing.assert_close(found, (torch.tensor(weights) / 0.9 * each).sum())
