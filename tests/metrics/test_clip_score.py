import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import paired_cosine_distances
from torch import Tensor

from lightning_ss2a.metrics import CLIPScore
from lightning_ss2a.metrics.functional import clip_score
from tests.metrics.metric_tester import MetricTester

TRANSLATED, VISUAL = torch.randn(2, 20, 9, generator=torch.Generator().manual_seed(1))
INPUTS = {"translated_audio": TRANSLATED + VISUAL, "visual": VISUAL}


def reference(inputs: dict[str, Tensor]) -> dict[str, float]:
    arrays = (inputs[name].double().numpy() for name in ("translated_audio", "visual"))
    return {"value": float(100 * np.mean(1 - paired_cosine_distances(*arrays)))}


class TestCLIPScore(MetricTester):
    make = CLIPScore
    inputs = INPUTS
    reference = staticmethod(reference)


def test_functional_equals_class():
    metric = CLIPScore()
    metric.update(TRANSLATED, VISUAL)
    torch.testing.assert_close(clip_score(TRANSLATED, VISUAL), metric.compute())
    assert CLIPScore.higher_is_better is True


def test_extremes():
    assert clip_score(2 * VISUAL, VISUAL).item() == 100
    assert clip_score(-VISUAL, VISUAL).item() == -100
    assert clip_score(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])) == 0


# -------------------------------------------------------------------- several sources


def several_sources(rows: int = 20, sources: int = 4, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, sources + 1, (rows, 1), generator=generator)
    return {
        "translated_audio": torch.randn(rows, 9, generator=generator),
        "visual": torch.randn(rows, sources, 9, generator=generator) + 0.3,
        "visible": torch.arange(sources) < counts,
    }


def reference_of_sources(inputs: dict[str, Tensor]) -> dict[str, float]:
    """Row by row and source by source."""
    means = []
    for audio, visual, visible in zip(*(inputs[name].numpy() for name in inputs), strict=True):
        seen = [v.astype(np.float64) for v, there in zip(visual, visible, strict=True) if there]
        audio = audio.astype(np.float64)
        means.append(np.mean([audio @ v / np.linalg.norm(audio) / np.linalg.norm(v) for v in seen]))
    return {"value": float(100 * np.mean(means))}


class TestCLIPScoreOfSeveralSources(MetricTester):
    make = CLIPScore
    inputs = several_sources()
    reference = staticmethod(reference_of_sources)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_several_sources_equal_a_loop(seed: int):
    inputs = several_sources(13, 5, seed)
    metric = CLIPScore()
    metric.update(**inputs)
    assert metric.compute().item() == pytest.approx(reference_of_sources(inputs)["value"], abs=1e-5)


def test_functional_takes_sources_and_gives_rows():
    inputs = several_sources()
    rows = clip_score(**inputs, reduction="none")
    expected = [reference_of_sources({k: v[i : i + 1] for k, v in inputs.items()})["value"] for i in range(20)]
    assert rows.tolist() == pytest.approx(expected, abs=1e-5)
    assert clip_score(**inputs).item() == pytest.approx(rows.mean().item(), abs=1e-5)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none', got 'sum'"):
        clip_score(TRANSLATED, VISUAL, reduction="sum")


def test_one_source_each_is_the_score_of_rows():
    one, other = CLIPScore(), CLIPScore()
    one.update(TRANSLATED, VISUAL)
    other.update(TRANSLATED, VISUAL.unsqueeze(1), torch.ones(20, 1, dtype=torch.bool))
    assert torch.equal(one.compute(), other.compute())


def test_sources_that_are_not_there_may_hold_anything():
    inputs = several_sources()
    spoiled = dict(inputs)
    spoiled["visual"] = inputs["visual"].masked_fill(~inputs["visible"].unsqueeze(-1), torch.nan)
    one, other = CLIPScore(), CLIPScore()
    one.update(**inputs)
    other.update(**spoiled)
    assert torch.equal(one.compute(), other.compute())


@pytest.mark.parametrize("broken", ["no source", "NaN in a source", "NaN in the audio"])
def test_a_row_that_has_no_score_spoils_it(broken: str):
    inputs = several_sources()
    if broken == "no source":
        inputs["visible"][3] = False
    elif broken == "NaN in a source":
        inputs["visual"][3, 0, 2] = torch.nan
    else:
        inputs["translated_audio"][3, 2] = torch.nan
    metric = CLIPScore()
    metric.update(**inputs)
    assert metric.compute().isnan()


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4), (3, 1)), ((3, 4), (3, 2, 5), (3, 2)), ((3, 4), (3, 2, 4), (3, 3))])
def test_shapes_of_sources_that_do_not_fit_are_named(shapes: tuple):
    translated, visual, visible = (torch.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match="do not fit: they must be"):
        CLIPScore().update(translated, visual, visible.bool())
