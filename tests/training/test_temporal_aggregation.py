"""TemporalAggregationModule: Eq. 10, its rivals, and data that are no videos of audio embeddings."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_ss2a.data import FRAMES_PER_VIDEO, FieldSpec, ShardDataset, ShardWriter
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import TemporalAggregationModule
from lightning_ss2a.training.validation.measuring import MeasuringOptions
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    Recorder,
    make_data,
    make_trainer,
    write_learnable_pairs,
)
from tests.scene_examples import make_aggregation, write_learnable_scenes, write_learnable_videos

DETERMINISTIC = {"dropout": 0.0, "embedding": "mean"}
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_videos(tmp_path_factory.mktemp("videos"))


def make_batch(seed: int = 0, rows: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "frames": torch.randn(rows, FRAMES_PER_VIDEO, AUDIO_WIDTH, generator=generator) + 0.3,
        "timestamps": torch.rand(rows, FRAMES_PER_VIDEO, generator=generator).sort(1).values * 10,
        "audio": torch.randn(rows, AUDIO_WIDTH, generator=generator) + 0.3,
        "index": torch.arange(rows),
    }


def fit(module: TemporalAggregationModule, dataset: str, folder: Path, **options: Any) -> tuple[Trainer, Recorder]:
    recorder = Recorder()
    trainer = make_trainer(folder, callbacks=[recorder], **options)
    trainer.fit(module, datamodule=make_data(dataset))
    return trainer, recorder


def mean_cosine(predicted: np.ndarray, true: np.ndarray) -> float:
    lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(true, axis=1)
    return float(((predicted * true).sum(1) / lengths).mean())


# -------------------------------------------------------------------- Eq. 10


@SEEDS
@pytest.mark.parametrize("options", [{}, {"variant": "published", "width": AUDIO_WIDTH}])
def test_losses_are_equation_10(seed: int, options: dict):
    module = make_aggregation(seed, kl_weight=0.03, **options, **DETERMINISTIC)
    torch.nn.init.normal_(module.aggregator.log_variance_head[-1].weight)
    batch = make_batch(seed)
    cosines, divergences = [], []
    for frames, timestamps, audio in zip(batch["frames"], batch["timestamps"], batch["audio"], strict=True):
        found = module.aggregator(frames[None], timestamps[None])
        mean, log_variance = found.mean[0].double(), found.log_variance[0].double()
        cosines.append((1 - mean @ audio.double() / mean.norm() / audio.norm()).abs())
        divergences.append((mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2)
    cosine, kl = torch.stack(cosines).mean(), torch.stack(divergences).mean()
    expected = {"loss": cosine + 0.03 * kl, "cosine": cosine, "kl": kl}
    terms = module.losses(batch)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=5e-6), name
    parameters = list(module.parameters())
    gradients = [torch.autograd.grad(each["loss"], parameters) for each in (terms, expected)]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


@SEEDS
def test_a_linear_aggregator_has_no_divergence(seed: int):
    module, batch = make_aggregation(seed, flavour="linear"), make_batch(seed)
    torch.nn.init.normal_(module.aggregator.weight)
    frames = batch["frames"].numpy().astype(np.float64)
    frames /= np.linalg.norm(frames, axis=2, keepdims=True)
    fused = np.einsum("t,bta->ba", module.aggregator.weight.detach().numpy(), frames)
    terms = module.losses(batch)
    assert terms.keys() == {"loss", "cosine"}
    assert terms["loss"].item() == pytest.approx(1 - mean_cosine(fused, batch["audio"].numpy()), rel=1e-5)
    np.testing.assert_allclose(module.predict_audio(batch).detach(), fused, rtol=1e-4, atol=1e-5)


@SEEDS
@pytest.mark.parametrize("draws", [1, 4])
def test_the_loss_sees_a_mean_of_draws(seed: int, draws: int):
    module, batch = make_aggregation(seed, dropout=0.0, draws=draws, kl_weight=0.0), make_batch(seed)
    torch.manual_seed(seed)
    loss = module.losses(batch)["loss"].item()
    gaussian = module.aggregator(batch["frames"], batch["timestamps"])
    torch.manual_seed(seed)
    drawn = gaussian.mean + torch.randn_like(gaussian.mean) * (gaussian.log_variance / 2).exp() / draws**0.5
    assert loss == pytest.approx(1 - mean_cosine(drawn.detach().numpy(), batch["audio"].numpy()), rel=1e-5)


def test_timestamps_matter_and_the_order_of_frames_with_them_does_not():
    batch = make_batch()
    order = torch.randperm(FRAMES_PER_VIDEO, generator=torch.Generator().manual_seed(0))
    shuffled = batch | {"frames": batch["frames"][:, order], "timestamps": batch["timestamps"][:, order]}
    reversed_in_time = batch | {"timestamps": -batch["timestamps"]}
    for aggregator in ("attention", "linear"):
        module = make_aggregation(flavour=aggregator).eval()
        if aggregator == "linear":
            torch.nn.init.normal_(module.aggregator.weight)
        expected = module.predict_audio(batch)
        torch.testing.assert_close(module.predict_audio(shuffled), expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(module.predict_audio(reversed_in_time), expected, atol=1e-3)


# -------------------------------------------------------------------- numbers, and learning


@pytest.mark.parametrize("aggregator", ["attention", "linear"])
def test_numbers_are_those_of_direct_calls(dataset: str, tmp_path: Path, aggregator: str):
    module = make_aggregation(flavour=aggregator, learning_rate=1e-2)
    values = fit(module, dataset, tmp_path, max_epochs=1)[1].validation[0]
    rows = ShardDataset(dataset, "validation").columns()
    with torch.no_grad():
        predicted = module.eval().predict_audio(rows).double().numpy()
    frames, true = rows["frames"].double().numpy(), rows["audio"].double().numpy()
    mean = (frames / np.linalg.norm(frames, axis=2, keepdims=True)).mean(1)
    assert values["val/reconstruction_cosine"] == pytest.approx(mean_cosine(predicted, true), abs=1e-5)
    assert values["val/reconstruction_cosine_baseline/frame_mean"] == pytest.approx(mean_cosine(mean, true), abs=1e-5)
    assert {"val/ssms", "val/ssms_baseline/frame_mean", "val/ssms_baseline/ridge"} <= values.keys()
    assert [name for name in values if "clip_score" in name] == []  # nothing is seen
    assert [name for name in values if "sources" in name] == []


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options", [{}, {"variant": "published", "width": AUDIO_WIDTH, "expansion": 2}, {"flavour": "linear"}]
)
def test_it_learns(dataset: str, tmp_path: Path, seed: int, options: dict):
    module = make_aggregation(seed, learning_rate=5e-3, **options)
    recorder = fit(module, dataset, tmp_path, max_epochs=12, check_val_every_n_epoch=12, limit_val_batches=5)[1]
    values = recorder.validation[-1]
    assert values["val/reconstruction_cosine"] > values["val/reconstruction_cosine_baseline/mean_audio"] + 0.4
    losses = [terms["train/loss_cosine"] for terms in recorder.training.values()]
    assert sum(losses[-6:]) < (1.0 if options.get("aggregator") == "linear" else 0.6) * sum(losses[:6])


def test_a_linear_aggregator_starts_as_the_mean_over_frames(dataset: str, tmp_path: Path):
    values = fit(make_aggregation(flavour="linear", learning_rate=0.0), dataset, tmp_path, max_epochs=1)[1]
    for metric in ("reconstruction_cosine", "ssms"):
        named = values.validation[0]
        assert named[f"val/{metric}"] == pytest.approx(named[f"val/{metric}_baseline/frame_mean"], abs=1e-6)


# -------------------------------------------------------------------- data


@pytest.mark.parametrize("aggregator", ["mean", "middle"])
def test_what_learns_nothing_can_be_fitted_and_stays_as_it_is(dataset: str, tmp_path: Path, aggregator: str):
    module = make_aggregation(0, flavour=aggregator)
    before = module.aggregator.weight.detach().clone()
    trainer, _ = fit(module, dataset, tmp_path, max_epochs=2)
    assert torch.equal(module.aggregator.weight, before)
    assert before.sum().item() == pytest.approx(1)
    assert before.count_nonzero() == {"mean": 64, "middle": 1}[aggregator]
    rows = ShardDataset(dataset, "validation").columns()
    frames = torch.nn.functional.normalize(rows["frames"].double(), dim=-1).numpy()
    predicted = frames.mean(1) if aggregator == "mean" else frames[:, FRAMES_PER_VIDEO // 2]  # in the order of time
    values = trainer.callback_metrics
    expected = mean_cosine(predicted, rows["audio"].double().numpy())
    assert values["val/reconstruction_cosine"].item() == pytest.approx(expected, abs=1e-5)
    if aggregator == "mean":
        assert values["val/ssms"].item() == pytest.approx(values["val/ssms_baseline/frame_mean"].item())


def with_visual(dataset: str, folder: Path) -> str:
    """The same videos with a field ``visual``, and without a label head."""
    rows = {split: ShardDataset(dataset, split).columns() for split in ("train", "validation")}
    audio = FieldSpec(AUDIO_WIDTH, "ear", "float32")
    fields = {
        "frames": FieldSpec(AUDIO_WIDTH, "ear", "float32", role="audio"),
        "audio": audio,
        "visual": FieldSpec(VISUAL_WIDTH, "eye", "float32"),
    }
    mixing = np.random.default_rng(0).normal(size=(AUDIO_WIDTH, VISUAL_WIDTH))
    with ShardWriter(folder, "videos", fields, ["cat", "dog", "owl"], block_rows=8) as writer:
        for split, columns in rows.items():
            plain = {name: x.numpy() for name, x in columns.items() if isinstance(x, Tensor) and name != "index"}
            plain["visual"] = plain["audio"] @ mixing
            writer.write(split, plain | {"key": np.array(columns["key"], np.bytes_)})
    return str(folder)


def test_videos_with_what_is_seen_have_a_clip_score(dataset: str, tmp_path: Path):
    videos = with_visual(dataset, tmp_path / "videos")
    values = fit(make_aggregation(), videos, tmp_path, max_epochs=1)[1].validation[0]
    baselines = {"chance", "mean_audio", "ridge", "ridge_ssms", "frame_mean"}
    assert {name for name in values if "clip_score" in name} == {"val/clip_score"} | {
        f"val/clip_score_baseline/{name}" for name in baselines
    }
    assert values["val/clip_score_baseline/frame_mean"] > 70  # what is seen is linear in what is heard
    assert all(math.isfinite(value) for value in values.values())
    assert [name for name in values if name.startswith("val/ssms")] == []


def test_wrong_data_are_named(dataset: str, tmp_path: Path):
    pairs, scenes = write_learnable_pairs(tmp_path / "pairs"), write_learnable_scenes(tmp_path / "scenes")
    for other, kind in ((pairs, "pairs"), (scenes, "scenes")):
        with pytest.raises(InputError, match=f"a data set of kind {kind}; TemporalAggregationModule needs videos"):
            fit(make_aggregation(), other, tmp_path)
    seen = write_learnable_videos(tmp_path / "seen", role="visual")
    with pytest.raises(InputError, match=f"not audio embeddings; make them with `ss2a shards frames {seen}"):
        fit(make_aggregation(), seen, tmp_path)
    with pytest.raises(InputError, match=r"model.audio_width is 9, but the data's embeddings have width 8"):
        fit(TemporalAggregationModule(9, measuring=MeasuringOptions(4)), dataset, tmp_path)
    with pytest.raises(InputError, match=r"model.measuring.top_n is 16, but the data's label head has only 15 labels"):
        fit(make_aggregation(top_n=16), dataset, tmp_path)
    with pytest.raises(InputError, match="translator_checkpoint has no use: these data have no visual embeddings"):
        fit(make_aggregation(translator_checkpoint="translator.ckpt"), dataset, tmp_path)
