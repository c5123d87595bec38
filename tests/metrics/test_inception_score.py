import functools

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import InceptionScore
from lightning_ss2a.metrics.functional import inception_score, shuffled_splits
from tests.metrics.metric_tester import MetricChecks

LOGITS = 2 * torch.randn(20, 7, generator=torch.Generator().manual_seed(1))
SPLITS = torch.tensor([0, 1, 2] * 6 + [0, 2])


def score(logits: np.ndarray) -> float:
    """By scipy's relative entropy."""
    p = softmax(logits.astype(np.float64), axis=1)
    return float(np.exp(np.mean([entropy(row, p.mean(0)) for row in p])))


def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
    scores = [score(inputs["logits"].numpy()[inputs["split_index"].numpy() == split]) for split in range(3)]
    return {"mean": float(np.mean(scores)), "std": float(np.std(scores))}


class TestInceptionScore(MetricChecks):
    make = functools.partial(InceptionScore, splits=3)
    inputs = {"logits": LOGITS, "split_index": SPLITS}  # noqa: RUF012
    reference = staticmethod(reference)


def test_functional_equals_class():
    metric = InceptionScore(splits=3)
    metric.update(LOGITS, SPLITS)
    torch.testing.assert_close(
        torch.stack(inception_score(LOGITS, SPLITS, 3)), torch.stack([*metric.compute().values()])
    )
    mean, std = inception_score(LOGITS)
    assert mean.item() == pytest.approx(score(LOGITS.numpy()))
    assert std == 0


def test_extremes():
    sure = 1000 * torch.eye(5)
    assert inception_score(sure)[0].item() == pytest.approx(5)
    assert inception_score(sure[:1].expand(4, 5))[0] == 1  # all of one class
    assert inception_score(torch.zeros(4, 5))[0].item() == pytest.approx(1)  # nothing in particular
    assert inception_score(LOGITS[:1])[0].item() == pytest.approx(1)  # one sound


def test_splits_are_those_of_av_benchmark():
    rows, splits = 23, 4
    order = np.random.RandomState(2020).permutation(rows)
    chunks = [order[i * rows // splits : (i + 1) * rows // splits] for i in range(splits)]
    found = shuffled_splits(rows, splits)
    assert [found[chunk].unique().tolist() for chunk in chunks] == [[0], [1], [2], [3]]
    assert shuffled_splits(20).bincount().tolist() == [2] * 10


def test_an_empty_split_has_no_score_and_is_warned_of():
    with pytest.warns(UserWarning, match="of 20 sounds in 4 splits, of which some have none"):
        assert inception_score(LOGITS, SPLITS, 4)[0].isnan()
    metric = InceptionScore(splits=4)
    metric.update(LOGITS, SPLITS)
    with pytest.warns(UserWarning, match="of 20 sounds in 4 splits"):
        assert metric.compute()["mean"].isnan()


def test_bad_input_is_named():
    broken = LOGITS.clone()
    broken[6, 1] = torch.nan
    with pytest.raises(InputError, match="logits: row 6 of 20 holds NaN or infinity"):
        InceptionScore().update(broken)
    with pytest.raises(ValueError, match="there are 3 splits, so split_index must be given"):
        InceptionScore(splits=3).update(LOGITS)
    with pytest.raises(ValueError, match=r"split_index must be in 0\.\.1, got 2"):
        inception_score(LOGITS, SPLITS, 2)
    with pytest.raises(ValueError, match=r"split_index must be \[20\], one number a row, got \(3,\)"):
        inception_score(LOGITS, SPLITS[:3], 2)
    with pytest.raises(ValueError, match="splits must be at least 1, got 0"):
        InceptionScore(splits=0)
