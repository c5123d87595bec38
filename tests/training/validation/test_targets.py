"""What predictions are measured against, by hand, for each kind of data set."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ss2a.models.layers.embeddings import mean_direction
from lightning_ss2a.training.validation.targets import targets_of

VISUAL, AUDIO, FRAMES = 4, 3, 5
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double) + 0.2


@SEEDS
def test_pairs(seed: int):
    batch = {"visual": normal(seed, 6, VISUAL), "audio": normal(seed + 9, 6, AUDIO), "index": torch.arange(6) + 3}
    targets = targets_of(batch)
    assert len(targets) == 6
    assert targets.audio is batch["audio"]
    assert targets.index is batch["index"]
    np.testing.assert_allclose(targets.features, unit(batch["visual"].numpy()), rtol=1e-12)
    np.testing.assert_array_equal(targets.visual, batch["visual"].numpy()[:, None])
    np.testing.assert_allclose(targets.mean_visual, unit(batch["visual"].numpy()), rtol=1e-12)
    assert targets.visible.tolist() == [[True]] * 6


def scenes(seed: int, counts: list[int], longest: int) -> dict[str, Tensor]:
    return {
        "sources": normal(seed, len(counts), longest, VISUAL),
        "valid": torch.arange(longest) < torch.tensor(counts)[:, None],
        "global_visual": normal(seed + 5, len(counts), VISUAL),
        "audio": normal(seed + 9, len(counts), AUDIO),
        "index": torch.arange(len(counts)),
    }


@SEEDS
def test_scenes_have_the_global_embedding_and_the_mean_direction_of_their_sources(seed: int):
    counts = [3, 1, 4]
    batch = scenes(seed, counts, 4)
    targets = targets_of(batch)
    sources = batch["sources"].numpy()
    means = np.stack([unit(sources[row, :count]).mean(0) for row, count in enumerate(counts)])
    features = np.concatenate([unit(batch["global_visual"].numpy()), means], axis=1)
    np.testing.assert_allclose(targets.features, features, rtol=1e-12)
    np.testing.assert_allclose(targets.mean_visual, means, rtol=1e-12)
    assert targets.visible.sum(1).tolist() == counts
    np.testing.assert_array_equal(targets.visual, sources)


@SEEDS
def test_padded_sources_do_not_count(seed: int):
    """Whatever stands in them, NaN too, and however many there are."""
    batch = scenes(seed, [3, 1, 2], 3)
    longer = dict(batch)
    longer["sources"] = torch.cat([batch["sources"], torch.full((3, 2, VISUAL), torch.nan).double()], dim=1)
    longer["sources"][1, 1:] = torch.inf
    longer["sources"][2, 2] = 1e9
    longer["valid"] = torch.cat([batch["valid"], torch.zeros(3, 2, dtype=torch.bool)], dim=1)
    first, second = targets_of(batch), targets_of(longer)
    torch.testing.assert_close(first.features, second.features)
    torch.testing.assert_close(first.mean_visual, second.mean_visual)


@SEEDS
@pytest.mark.parametrize("with_visual", [False, True])
def test_videos_have_the_mean_direction_of_their_frames(seed: int, with_visual: bool):
    batch = {
        "frames": normal(seed, 3, FRAMES, AUDIO),
        "audio": normal(seed + 9, 3, AUDIO),
        "index": torch.arange(3),
    }
    if with_visual:
        batch["visual"] = normal(seed + 5, 3, VISUAL)
    targets = targets_of(batch)
    np.testing.assert_allclose(targets.features, unit(batch["frames"].numpy()).mean(1), rtol=1e-12)
    assert targets.visible.tolist() == [[True]] * 3
    if not with_visual:
        assert targets.visual is None
        assert targets.mean_visual is None
        return
    np.testing.assert_allclose(targets.mean_visual, unit(batch["visual"].numpy()), rtol=1e-12)


def test_the_mean_direction_of_nothing_is_zero():
    found = mean_direction(torch.full((1, 2, 3), torch.nan), torch.zeros(1, 2, dtype=torch.bool))
    assert found.tolist() == [[0.0, 0.0, 0.0]]


def test_a_batch_without_rows():
    targets = targets_of({name: values[:0] for name, values in scenes(0, [1, 2], 2).items()})
    assert len(targets) == 0
    assert targets.features.shape == (0, 2 * VISUAL)
    assert targets.mean_visual.shape == (0, VISUAL)
