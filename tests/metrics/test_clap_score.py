import pytest
import torch
from sklearn.metrics.pairwise import paired_cosine_distances
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import ClapScore
from lightning_ss2a.metrics.functional import clap_score
from tests.metrics.metric_tester import MetricChecks

TEXT, AUDIO = torch.randn(2, 20, 9, generator=torch.Generator().manual_seed(1))


def rows(inputs: dict[str, Tensor]) -> list[float]:
    arrays = (inputs[name].double().numpy() for name in ("text_embedding", "audio_embedding"))
    return (1 - paired_cosine_distances(*arrays)).tolist()


class TestClapScore(MetricChecks):
    make = ClapScore
    inputs = {"text_embedding": TEXT, "audio_embedding": AUDIO + TEXT}  # noqa: RUF012

    @staticmethod
    def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
        return {"value": sum(rows(inputs)) / 20}


def test_rows_and_extremes():
    inputs = {"text_embedding": TEXT, "audio_embedding": AUDIO}
    assert clap_score(TEXT, AUDIO, reduction="none").tolist() == pytest.approx(rows(inputs), abs=1e-6)
    assert clap_score(TEXT, 3 * TEXT).item() == 1
    assert clap_score(TEXT, -TEXT).item() == -1  # not cut at 0
    assert clap_score(TEXT, torch.zeros_like(TEXT)) == 0
    assert ClapScore.higher_is_better is True


def test_bad_input_is_named():
    broken = AUDIO.clone()
    broken[2] = torch.nan
    for function in (clap_score, ClapScore().update):
        with pytest.raises(InputError, match="audio_embedding: row 2 of 20 holds NaN or infinity"):
            function(TEXT, broken)
        with pytest.raises(ValueError, match=r"text_embedding and audio_embedding must have one shape"):
            function(TEXT, AUDIO[:5])
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none', got 'sum'"):
        clap_score(TEXT, AUDIO, "sum")
