"""Projections are found again by what they are of: exactly, once each, and never of something else."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_ss2a.models import DiagonalGaussian
from lightning_ss2a.training.projection_cache import ProjectionCache

WIDTH, MANIFOLD_WIDTH = 5, 3


class Projector(nn.Module):
    """Each row on its own, element by element, so that a row's projection has the same bits in any batch."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(WIDTH, MANIFOLD_WIDTH, generator=generator))
        self.seen: list[Tensor] = []

    def forward(self, embeddings: Tensor) -> DiagonalGaussian:
        self.seen.append(embeddings.clone())
        mean = sum(embeddings[..., i, None] * self.weight[i] for i in range(WIDTH))
        return DiagonalGaussian(mean, mean.sin())

    @property
    def rows(self) -> list[tuple[float, ...]]:
        return [tuple(row) for part in self.seen for row in part.tolist()]


def random_rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def assert_projections_of(found: DiagonalGaussian, embeddings: Tensor, projector: Projector) -> None:
    expected = projector(embeddings)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.log_variance, expected.log_variance)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 0, 7], [11, 1]])
def test_a_lookup_is_the_projection_whatever_the_parts_and_the_shape(seed: int, sizes: list[int]):
    rows, projector = random_rows(12, seed), Projector(seed)
    cache = ProjectionCache(projector, rows.split(sizes))
    for embeddings in (rows, rows.flip(0), rows[3], rows[[7, 7, 0]], rows.view(3, 4, WIDTH), rows.view(2, 3, 2, WIDTH)):
        assert_projections_of(cache(embeddings), embeddings, projector)


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_each_different_embedding_is_projected_once_however_often_it_is_there(parts: list[list[int]], data):
    rows, projector = random_rows(10), Projector()
    given_rows = sorted(set(itertools.chain(*parts)))
    cache = ProjectionCache(projector, [rows[part] for part in parts])
    assert len(cache) == len(given_rows)
    assert sorted(projector.rows) == sorted(tuple(row) for row in rows[given_rows].tolist())
    if given_rows:
        asked = data.draw(st.lists(st.sampled_from(given_rows), max_size=12))
        assert_projections_of(cache(rows[asked]), rows[asked], projector)


def test_an_embedding_that_was_not_given_is_nan_and_spoils_no_other():
    rows, projector = random_rows(8), Projector()
    cache = ProjectionCache(projector, [rows[:6]])
    asked = torch.stack([rows[7], rows[2], rows[2] + 1e-6, rows[6], rows[5], torch.zeros(WIDTH)])
    found = cache(asked).mean
    assert found.isnan().all(1).tolist() == [True, False, True, True, False, True]
    assert torch.equal(found[[1, 4]], projector(rows[[2, 5]]).mean)


def test_nothing_is_drawn():
    rows, projector = random_rows(6), Projector()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    cache = ProjectionCache(projector, [rows])
    first = cache(rows)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again = ProjectionCache(projector, [rows])(rows)
    assert torch.equal(first.mean, again.mean)
    assert torch.equal(first.log_variance, again.log_variance)


def test_no_gradient_goes_through():
    rows, projector = random_rows(6), Projector()
    found = ProjectionCache(projector, [rows])(rows.clone().requires_grad_())
    assert not found.mean.requires_grad
    assert not found.log_variance.requires_grad


def test_the_sign_of_a_zero_does_not_matter():
    rows, projector = random_rows(4), Projector()
    rows[:, 2] = torch.tensor([0.0, -0.0, 0.0, -0.0])
    other = rows.clone()
    other[:, 2] = -rows[:, 2]
    assert rows[0, 2].signbit() != other[0, 2].signbit()
    cache = ProjectionCache(projector, [rows, other])
    assert len(cache) == 4
    torch.testing.assert_close(cache(other).mean, projector(rows).mean, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_embeddings_stored_in_half_precision_are_found_in_both_types(dtype: torch.dtype):
    rows, projector = random_rows(50).to(dtype), Projector()
    cache = ProjectionCache(projector, [rows])
    assert {part.dtype for part in projector.seen} == {torch.float32}
    for asked in (rows, rows.float()):
        assert_projections_of(cache(asked), rows.float(), projector)


def test_projections_are_float32_under_autocast():
    rows = random_rows(9)
    projector = nn.Linear(WIDTH, MANIFOLD_WIDTH)

    def project(embeddings: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(projector(embeddings), torch.zeros(len(embeddings), MANIFOLD_WIDTH))

    expected = projector(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ProjectionCache(project, [rows])(rows).mean
        assert projector(rows).dtype == torch.bfloat16
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_embeddings_that_differ_by_few_bits_are_told_apart(seed: int):
    """Signs are one bit of 32. A sum of products alone would take some of these embeddings for others."""
    random = np.random.default_rng(seed)
    parts = [torch.from_numpy(random.integers(0, 2, (2**15, 64)) * 2 - 1).float() for _ in range(8)]
    assert len(np.unique(np.packbits(torch.cat(parts).numpy() > 0, axis=1), axis=0)) == 2**18
    cache = ProjectionCache(lambda x: DiagonalGaussian(x[:, :20], x[:, :20]), parts)
    assert len(cache) == 2**18
    assert torch.equal(cache(parts[3]).mean, parts[3][:, :20])
