"""V2AMapperModule: its two losses, samples that belong to a row, and data that do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_ss2a.data import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import RegressionMapperOptions
from lightning_ss2a.models.layers.keyed_noise import keyed_normal
from lightning_ss2a.training import V2AMapperModule
from lightning_ss2a.training.validation.measuring import MeasuringOptions
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    Recorder,
    make_data,
    make_trainer,
    write_learnable_pairs,
)
from tests.scene_examples import make_mapper, write_learnable_scenes, write_learnable_videos

SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])
FLAVOURS = pytest.mark.parametrize("flavour", ["diffusion", "regression"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_scenes(tmp_path_factory.mktemp("scenes"))


def make_batch(seed: int = 0, rows: int = 6, field: str = "global_visual") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        field: torch.randn(rows, VISUAL_WIDTH, generator=generator) + 0.3,
        "audio": torch.randn(rows, AUDIO_WIDTH, generator=generator) + 0.3,
        "key": [f"row{n}" for n in range(rows)],
    }


def fit(module: V2AMapperModule, dataset: str, folder: Path, **options: Any) -> Recorder:
    recorder = Recorder()
    make_trainer(folder, callbacks=[recorder], **options).fit(module, datamodule=make_data(dataset))
    return recorder


def unit(rows: Any) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def take(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    return {n: [x[r] for r in rows] if isinstance(x, list) else x[torch.tensor(rows)] for n, x in batch.items()}


# -------------------------------------------------------------------- losses


@SEEDS
def test_the_regression_mapper_learns_directions(seed: int):
    module, batch = make_mapper(seed, flavour="regression"), make_batch(seed)
    terms = module.losses(batch)
    predicted = module.mapper(batch["global_visual"]).detach()
    expected = 1 - (unit(predicted) * unit(batch["audio"])).sum(1).mean()
    assert terms.keys() == {"loss", "cosine"}
    assert terms["loss"].item() == terms["cosine"].item() == pytest.approx(expected, rel=1e-5)


@SEEDS
def test_the_diffusion_mapper_learns_to_take_noise_off(seed: int):
    """Squared error of the clean embedding that the transformer predicts, from what the step drew."""
    module, batch = make_mapper(seed, condition_dropout=0.0), make_batch(seed)
    torch.manual_seed(seed)
    terms = module.losses(batch)
    torch.manual_seed(seed)
    clean = torch.from_numpy(unit(batch["audio"]) * AUDIO_WIDTH**0.5).float()
    noise, steps = torch.randn_like(clean), torch.randint(1000, (6,))
    kept = module.mapper.scheduler.alphas_cumprod[steps][:, None]
    noised = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    condition = torch.from_numpy(unit(batch["global_visual"]) * VISUAL_WIDTH**0.5).float()
    predicted = module.mapper.transformer(noised, steps, condition, return_dict=False)[0]
    expected = np.square(predicted.detach().numpy().astype(np.float64) - clean.numpy()).mean()
    assert terms.keys() == {"loss", "denoising"}
    assert terms["loss"].item() == terms["denoising"].item() == pytest.approx(expected, rel=1e-5)


@FLAVOURS
def test_pairs_serve_as_scenes_do(flavour: str):
    """The one picture of a pair takes the place of a scene's global embedding; its sources are not looked at."""
    module = make_mapper(flavour=flavour).eval()
    scene, pair = make_batch(), make_batch(field="visual")
    torch.manual_seed(0)
    first = module.losses(scene | {"sources": torch.full((6, 2, VISUAL_WIDTH), torch.nan)})["loss"]
    torch.manual_seed(0)
    assert torch.equal(module.losses(pair)["loss"], first)
    assert torch.equal(module.predict_audio(pair), module.predict_audio(scene))


# -------------------------------------------------------------------- samples


@SEEDS
@pytest.mark.parametrize("options", [{}, {"guidance_scale": 2.0}])
def test_a_sample_depends_on_its_row_alone(seed: int, options: dict):
    module, batch = make_mapper(seed, **options).eval(), make_batch(seed)
    expected = module.predict_audio(batch)
    torch.manual_seed(99)
    assert torch.equal(module.predict_audio(batch), expected)
    alone = torch.cat([module.predict_audio(take(batch, [row])) for row in range(6)])
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)
    some = module.predict_audio(take(batch, [4, 1, 1]))
    torch.testing.assert_close(some, expected[[4, 1, 1]], rtol=1e-5, atol=1e-5)
    assert float((module.predict_audio(batch, seed=1) - expected).norm(dim=1).min()) > 1e-3
    renamed = batch | {"key": batch["key"][::-1]}
    assert float((module.predict_audio(renamed) - expected).norm(dim=1).min()) > 1e-3


def test_a_sample_is_that_of_the_mapper_with_the_noise_of_its_key():
    module, batch = make_mapper(sample_steps=4).eval(), make_batch()
    noise = keyed_normal(7, batch["key"], AUDIO_WIDTH, torch.device("cpu"))
    expected = module.mapper.sample(batch["global_visual"], noise=noise)
    assert torch.equal(module.predict_audio(batch, seed=7), expected)
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(6))


# -------------------------------------------------------------------- numbers, and learning


@FLAVOURS
@pytest.mark.parametrize("size", [1, 23])
def test_numbers_are_those_of_direct_calls(scenes: str, tmp_path: Path, flavour: str, size: int):
    module, recorder = make_mapper(flavour=flavour, learning_rate=1e-2), Recorder()
    trainer = make_trainer(tmp_path, callbacks=[recorder], max_epochs=1)
    trainer.fit(module, datamodule=make_data(scenes, evaluation_batch_size=size))
    rows = ShardDataset(scenes, "validation").columns()
    with torch.no_grad():
        predicted = module.eval().predict_audio(rows)
    expected = (unit(predicted) * unit(rows["audio"])).sum(1).mean()
    values = recorder.validation[0]
    assert values["val/reconstruction_cosine"] == pytest.approx(expected, abs=1e-5)
    baselines = {f"val/ssms_baseline/{name}" for name in ("chance", "mean_audio", "ridge", "ridge_ssms")}
    assert baselines | {"val/ssms/sources_1", "val/ssms/sources_3", "val/clip_score"} <= values.keys()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["scenes", "pairs"])
@FLAVOURS
def test_it_learns(scenes: str, tmp_path: Path, seed: int, flavour: str, kind: str):
    dataset = scenes if kind == "scenes" else write_learnable_pairs(tmp_path / "pairs")
    module = make_mapper(seed, flavour=flavour, learning_rate=1e-2)
    recorder = fit(module, dataset, tmp_path, max_epochs=25, check_val_every_n_epoch=25)
    values = recorder.validation[-1]
    assert values["val/reconstruction_cosine"] > values["val/reconstruction_cosine_baseline/mean_audio"] + 0.3
    losses = [terms["train/loss"] for terms in recorder.training.values()]
    assert sum(losses[-12:]) / 12 < 0.7 * sum(losses[:6]) / 6


# -------------------------------------------------------------------- data


def test_wrong_data_are_named(scenes: str, tmp_path: Path):
    videos = write_learnable_videos(tmp_path / "videos")
    with pytest.raises(InputError, match="a data set of kind videos; V2AMapperModule needs scenes or pairs"):
        fit(make_mapper(), videos, tmp_path)
    for widths, message in (
        ((11, AUDIO_WIDTH), "model.visual_width is 11, but the data's embeddings have width 10"),
        ((VISUAL_WIDTH, 9), "model.audio_width is 9, but the data's embeddings have width 8"),
    ):
        with pytest.raises(InputError, match=message):
            fit(
                V2AMapperModule(*widths, "regression", RegressionMapperOptions((8,)), measuring=MeasuringOptions(4)),
                scenes,
                tmp_path,
            )
    with pytest.raises(InputError, match=r"model.measuring.top_n is 16, but the data's label head has only 15 labels"):
        fit(make_mapper(top_n=16), scenes, tmp_path)
