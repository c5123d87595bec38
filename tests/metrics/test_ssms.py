import functools

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from lightning_ss2a.metrics import SoundSourceMatchingScore
from lightning_ss2a.metrics.functional import label_agreement, sound_source_matching_score
from tests.metrics.metric_tester import MetricChecks, MetricTester

LABELS, TOP_N = 30, 4
PREDICTED, TARGET = torch.randn(2, 20, LABELS, generator=torch.Generator().manual_seed(3))
PREDICTED = PREDICTED + TARGET
CLASSES = torch.tensor([0, 1, 3] * 6 + [3, 0])  # class 2 is absent
INPUTS = {"predicted_scores": PREDICTED, "target_scores": TARGET, "class_index": CLASSES}


def top_labels(scores: Tensor) -> np.ndarray:
    """Indicator matrix of the top labels, [rows, labels]."""
    ranks = np.argsort(np.argsort(-scores.numpy(), axis=1, kind="stable"), axis=1)
    return (ranks < TOP_N).astype(int)


def rows_by_sklearn(predicted: Tensor, target: Tensor) -> np.ndarray:
    pairs = zip(top_labels(predicted), top_labels(target), strict=True)
    return np.array([10 * f1_score(true, found) for found, true in pairs])


def reference(inputs: dict[str, Tensor]) -> dict[str, float | list[float]]:
    predicted, target = inputs["predicted_scores"], inputs["target_scores"]
    rows, classes = rows_by_sklearn(predicted, target), inputs["class_index"].numpy()
    samples = 10 * f1_score(top_labels(target), top_labels(predicted), average="samples")
    per_class = [rows[classes == c].mean() if (classes == c).any() else float("nan") for c in range(5)]
    return {"value": float(samples), "per_class": per_class}


class TestSoundSourceMatchingScore(MetricTester):
    make = functools.partial(SoundSourceMatchingScore, top_n=TOP_N, num_classes=5)
    inputs = INPUTS
    reference = staticmethod(reference)


# ------------------------------------------- labels of different number, numbers of sources

SOURCES = torch.tensor([1, 2, 1, 7, 4] * 4)


def numbers_by_sets(predicted: Tensor, target: Tensor) -> np.ndarray:
    """Precision, recall and F1 from sets of labels, [rows, 3]; 6 labels are predicted, 4 are true."""
    numbers = []
    for found, true in zip(predicted.numpy(), target.numpy(), strict=True):
        found_set, true_set = set(np.argsort(-found)[:6]), set(np.argsort(-true)[:4])
        hits = len(found_set & true_set)
        precision, recall = hits / len(found_set), hits / len(true_set)
        numbers.append((precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)))
    return np.array(numbers)


def reference_of_sources(inputs: dict[str, Tensor]) -> dict[str, float | list[float]]:
    precision, recall, f1 = numbers_by_sets(inputs["predicted_scores"], inputs["target_scores"]).T
    sources = inputs["source_count"].numpy()
    groups = [sources == 1, sources == 2, sources == 3, sources >= 4]
    return {
        "value": float(10 * f1.mean()),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "per_source_count": [10 * f1[group].mean() if group.any() else float("nan") for group in groups],
    }


class TestLabelsOfDifferentNumber(MetricChecks):
    make = functools.partial(SoundSourceMatchingScore, top_n=6, target_top_n=4, most_sources=4)
    inputs = {"predicted_scores": PREDICTED, "target_scores": TARGET, "source_count": SOURCES}  # noqa: RUF012
    reference = staticmethod(reference_of_sources)


def test_agreement_equals_sets_row_by_row():
    found = label_agreement(PREDICTED, TARGET, top_n=6, target_top_n=4)
    np.testing.assert_allclose(torch.stack(found, 1).numpy(), numbers_by_sets(PREDICTED, TARGET), atol=1e-6)
    score = sound_source_matching_score(PREDICTED, TARGET, 6, "none", target_top_n=4)
    torch.testing.assert_close(score, 10 * found.f1)
    # F1 of the mean precision and the mean recall, which the paper's authors compute, is the mean of F1.
    precision, recall, f1 = (part.mean().item() for part in found)
    assert 2 * precision * recall / (precision + recall) == pytest.approx(f1)
    broken = PREDICTED.clone()
    broken[2, 3] = torch.nan
    assert all(part.isnan().nonzero().tolist() == [[2]] for part in label_agreement(broken, TARGET))


def test_both_breakdowns_at_once():
    metric = SoundSourceMatchingScore(top_n=TOP_N, num_classes=5, most_sources=2)
    metric.update(PREDICTED, TARGET, CLASSES, SOURCES)
    rows = torch.tensor(rows_by_sklearn(PREDICTED, TARGET))
    expected = [rows[SOURCES == 1].mean().item(), rows[SOURCES > 1].mean().item()]
    assert metric.per_source_count().tolist() == pytest.approx(expected)
    assert metric.per_class().tolist() == pytest.approx(reference(INPUTS)["per_class"], nan_ok=True)
    assert metric.precision().item() == metric.recall().item() == pytest.approx(rows.mean().item() / 10)


def test_bad_numbers_of_sources_are_named():
    metric = SoundSourceMatchingScore(most_sources=3)
    with pytest.raises(ValueError, match="source_count must be at least 1, got 0"):
        metric.update(PREDICTED, TARGET, source_count=SOURCES - 1)
    with pytest.raises(ValueError, match=r"source_count must be \[20\] numbers of sources, got nothing"):
        metric.update(PREDICTED, TARGET)
    with pytest.raises(ValueError, match="per_source_count needs most_sources"):
        SoundSourceMatchingScore().per_source_count()
    with pytest.raises(ValueError, match="target_top_n must be at least 1, got 0"):
        SoundSourceMatchingScore(target_top_n=0)
    with pytest.raises(ValueError, match=r"target_top_n must be in 1\.\.30, the number of labels, got 31"):
        sound_source_matching_score(PREDICTED, TARGET, target_top_n=31)


def test_functional_equals_sklearn_row_by_row():
    rows = sound_source_matching_score(PREDICTED, TARGET, TOP_N, reduction="none")
    np.testing.assert_allclose(rows.numpy(), rows_by_sklearn(PREDICTED, TARGET), rtol=1e-6)
    assert sound_source_matching_score(PREDICTED, TARGET, TOP_N).item() == pytest.approx(rows.mean().item())


def test_extremes():
    assert sound_source_matching_score(TARGET, TARGET) == 10
    assert sound_source_matching_score(-TARGET, TARGET) == 0
    assert sound_source_matching_score(-TARGET, TARGET, top_n=LABELS) == 10
    assert SoundSourceMatchingScore.higher_is_better is True


def test_only_the_order_of_scores_counts():
    torch.testing.assert_close(
        sound_source_matching_score(PREDICTED.sigmoid(), TARGET * 3 - 1, TOP_N),
        sound_source_matching_score(PREDICTED, TARGET, TOP_N),
    )


def test_equal_scores_rank_by_label_number():
    constant = torch.zeros(1, 6)
    target = torch.tensor([[9.0, 8.0, 0.0, 0.0, 0.0, 7.0]])
    # Labels 0, 1, 2 against 0, 1, 5: two of three.
    assert sound_source_matching_score(constant, target, top_n=3).item() == pytest.approx(20 / 3)


def test_broken_rows_are_not_hidden():
    broken = PREDICTED.clone()
    broken[2, 3] = torch.nan
    rows = sound_source_matching_score(broken, TARGET, reduction="none")
    assert rows.isnan().nonzero().tolist() == [[2]]
    metric = SoundSourceMatchingScore()
    metric.update(broken, TARGET)
    assert metric.compute().isnan()


def test_class_index_is_ignored_without_classes():
    metric = SoundSourceMatchingScore(top_n=TOP_N)
    metric.update(PREDICTED, TARGET, CLASSES)
    torch.testing.assert_close(metric.compute(), sound_source_matching_score(PREDICTED, TARGET, TOP_N))
    with pytest.raises(ValueError, match="per_class needs num_classes"):
        metric.per_class()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_n": 31}, r"top_n must be in 1\.\.30, the number of labels, got 31"),
        ({"top_n": 0}, r"top_n must be in 1\.\.30"),
        ({"reduction": "sum"}, "reduction must be 'mean' or 'none', got 'sum'"),
        ({"target_scores": TARGET[:, :5]}, r"\[rows, labels\], got \(20, 30\) and \(20, 5\)"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        sound_source_matching_score(**{"predicted_scores": PREDICTED, "target_scores": TARGET, **options})


def test_bad_classes_are_named():
    metric = SoundSourceMatchingScore(num_classes=3)
    with pytest.raises(ValueError, match=r"class_index must be in 0\.\.2, got 3"):
        metric.update(PREDICTED, TARGET, CLASSES)
    with pytest.raises(ValueError, match=r"class_index must be \[20\] classes, got nothing"):
        metric.update(PREDICTED, TARGET)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        SoundSourceMatchingScore(num_classes=0)
    with pytest.raises(ValueError, match="top_n must be at least 1, got 0"):
        SoundSourceMatchingScore(top_n=0)
