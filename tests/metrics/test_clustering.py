import functools

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import PartitionCoefficient
from lightning_ss2a.metrics.functional import partition_coefficient
from tests.metrics.metric_tester import MetricChecks

CLASSES = torch.tensor([0, 5, 3, 3] * 5)
EMBEDDING = torch.randn(20, 6, generator=torch.Generator().manual_seed(1)) + torch.eye(6)[CLASSES] * 2
INPUTS = {"embedding": EMBEDDING, "class_index": CLASSES}


def memberships(inputs: dict[str, Tensor]) -> np.ndarray:
    x, y = inputs["embedding"].double().numpy(), inputs["class_index"].numpy()
    return (1 + cosine_similarity(x, NearestCentroid().fit(x, y).centroids_)) / 2


class TestPartitionCoefficient(MetricChecks):
    make = PartitionCoefficient
    inputs = INPUTS

    @staticmethod
    def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
        return {"value": float((memberships(inputs) ** 2).sum(1).mean())}


class TestPublished(MetricChecks):
    make = functools.partial(PartitionCoefficient, variant="published")
    inputs = INPUTS

    @staticmethod
    def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
        u, y = memberships(inputs), inputs["class_index"].numpy()
        return {"value": float(sum((u[y == c, j] ** 2).mean() for j, c in enumerate((0, 3, 5))))}


def test_published_equals_the_published_formula_on_classes_of_one_size():
    """Of [classes, samples, width]: own membership, squared, summed over classes, mean over samples."""
    clusters = EMBEDDING.double().numpy()[:18].reshape(3, 6, 6)
    centroids = clusters.mean(1)
    own = np.einsum("kse,ke->ks", clusters, centroids)
    own /= np.linalg.norm(clusters, axis=-1) * np.linalg.norm(centroids, axis=-1)[:, None]
    expected = np.mean(np.sum((own.T / 2 + 0.5) ** 2, axis=-1))
    found = partition_coefficient(EMBEDDING[:18], torch.arange(3).repeat_interleave(6), "published")
    assert found.item() == pytest.approx(expected)


def test_extremes():
    axes = torch.eye(4).repeat(3, 1)
    assert partition_coefficient(axes, torch.arange(4).repeat(3)).item() == pytest.approx(1 + 3 / 4)
    assert partition_coefficient(axes, torch.arange(4).repeat(3), "published").item() == pytest.approx(4)
    for variant in ("paper", "published"):  # constant embeddings reach the top: the index is no measure of clusters
        assert partition_coefficient(torch.ones(12, 4), torch.arange(4).repeat(3), variant).item() == pytest.approx(4)
    assert partition_coefficient(EMBEDDING[:1], CLASSES[:1]).item() == pytest.approx(1)


def test_bad_input_is_named():
    broken = EMBEDDING.clone()
    broken[11, 1] = torch.nan
    for function in (partition_coefficient, PartitionCoefficient().update):
        with pytest.raises(InputError, match="embedding: row 11 of 20 holds NaN or infinity"):
            function(broken, CLASSES)
        with pytest.raises(ValueError, match=r"class_index must be \[20\], one number a row, got \(4,\)"):
            function(EMBEDDING, CLASSES[:4])
        with pytest.raises(ValueError, match=r"class_index must be in 0\.\., got -1"):
            function(EMBEDDING, CLASSES - 1)
    with pytest.raises(ValueError, match="variant must be one of paper, published, got 'classic'"):
        PartitionCoefficient("classic")
    with pytest.raises(ValueError, match="variant must be one of paper, published, got 'classic'"):
        partition_coefficient(EMBEDDING, CLASSES, "classic")
