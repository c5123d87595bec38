import functools

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from lightning_ss2a.metrics import CrossModalRetrieval
from lightning_ss2a.metrics.functional import median_rank, retrieval_ranks, retrieval_recall
from lightning_ss2a.metrics.functional import retrieval as retrieval_module
from tests.metrics.metric_tester import MetricTester

VISUAL, NOISE = torch.randn(2, 20, 9, generator=torch.Generator().manual_seed(4))
INDEX = 3 * torch.randperm(20, generator=torch.Generator().manual_seed(5))
INPUTS = {"visual_embedding": VISUAL, "audio_embedding": VISUAL + NOISE, "index": INDEX}


def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
    similarity = cosine_similarity(*(inputs[f"{name}_embedding"].double().numpy() for name in ("visual", "audio")))
    values = {}
    for direction, matrix in (("visual_to_audio", similarity), ("audio_to_visual", similarity.T)):
        for k in (1, 5):
            values[f"recall@{k}/{direction}"] = top_k_accuracy_score(np.arange(20), matrix, k=k)
        values[f"median_rank/{direction}"] = float(np.median((matrix >= matrix.diagonal()[:, None]).sum(1)))
    return values


class TestCrossModalRetrieval(MetricTester):
    make = functools.partial(CrossModalRetrieval, ks=(1, 5))
    inputs = INPUTS
    reference = staticmethod(reference)


def test_ranks_by_hand():
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    gallery = torch.tensor([[2.0, 0.1], [1.0, 0.2], [0.0, 3.0]])
    # Query 0: first. Query 1: the third row is nearer than its own. Query 2: cosines 0.74, 0.83, 0.71, own last.
    assert retrieval_ranks(queries, gallery).tolist() == [1, 2, 3]


@pytest.mark.parametrize("count", [7, 8, 33])
def test_constant_similarity_ranks_at_chance(count: int):
    row = torch.randn(1, 512)
    ranks = retrieval_ranks(torch.randn(count, 512), row.expand(count, -1))
    assert ranks.tolist() == [(count + 1) / 2] * count
    assert median_rank(ranks) == (count + 1) / 2
    assert retrieval_recall(ranks, 1) == 0


def test_chunks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch):
    whole = retrieval_ranks(VISUAL, NOISE)
    for elements in (1, 60, 70):  # 1, 3 and 3 rows at a time
        monkeypatch.setattr(retrieval_module, "_MATRIX_ELEMENTS", elements)
        assert torch.equal(retrieval_ranks(VISUAL, NOISE), whole)


def test_recall_and_median():
    ranks = torch.tensor([1.0, 1.5, 7.0, 20.0])
    assert [retrieval_recall(ranks, k).item() for k in (1, 2, 10, 20)] == [0.25, 0.5, 0.75, 1]
    assert median_rank(ranks) == 4.25
    assert median_rank(ranks[:3]) == 1.5
    assert median_rank(ranks[:0]).isnan()


def test_broken_rows_are_misses():
    broken = VISUAL.clone()
    broken[2] = torch.nan
    ranks = retrieval_ranks(broken, VISUAL)
    assert ranks.isnan().nonzero().tolist() == [[2]]
    assert retrieval_recall(ranks, 20).item() == pytest.approx(19 / 20)
    assert median_rank(ranks).isnan()


def test_rows_of_the_last_compute():
    metric = CrossModalRetrieval()
    metric.update(VISUAL, NOISE, INDEX)
    metric.compute()
    assert metric.rows == 20


def test_repeated_index_is_named():
    metric = CrossModalRetrieval()
    metric.update(VISUAL, NOISE, INDEX)
    metric.update(VISUAL[:1], NOISE[:1], torch.tensor([21]))
    with pytest.raises(ValueError, match="index must be unique over batches and ranks, got 21 more than once"):
        metric.compute()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        retrieval_recall(torch.ones(3), 0)
    with pytest.raises(ValueError, match=r"ks must name places from 1, got \(0, 1\)"):
        CrossModalRetrieval(ks=(0, 1))
    with pytest.raises(ValueError, match=r"one shape \[rows, width\], got \(20, 9\) and \(19, 9\)"):
        retrieval_ranks(VISUAL, NOISE[1:])
    with pytest.raises(ValueError, match=r"got \(20, 9\), \(20, 9\) and \(19,\)"):
        CrossModalRetrieval().update(VISUAL, NOISE, INDEX[1:])
