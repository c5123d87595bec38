"""The stages that have one network, each with data that it learns, for tests of what they share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_ss2a.models.layers.keyed_noise import keyed_normal
from lightning_ss2a.training.base import StageModule
from tests.manifold_examples import Recorder, make_data, make_trainer, write_learnable_pairs
from tests.scene_examples import (
    make_aggregation,
    make_mapper,
    make_remixer,
    make_translator,
    save_manifold,
    write_learnable_scenes,
    write_learnable_videos,
)

ATTENTION = {"dropout": 0.0, "embedding": "mean"}


@dataclass(frozen=True)
class Stage:
    """A module, or one of its kinds.

    Attributes:
        make: makes the module, with dropout and sampling as by default.
        data: name of its data set.
        options: of the module.
        deterministic: options that switch dropout and sampling off.
        metric: what should grow while it learns.
    """

    make: Callable[..., StageModule]
    data: str
    metric: str = "val/reconstruction_cosine"
    options: dict[str, Any] = field(default_factory=dict)
    deterministic: dict[str, Any] = field(default_factory=lambda: {"dropout": 0.0})


STAGES = {
    "remixer": Stage(
        make_remixer, "scenes", deterministic=ATTENTION | {"token_dropout": 0.0, "source_embedding": "mean"}
    ),
    "aggregation": Stage(make_aggregation, "videos", deterministic=ATTENTION),
    "linear": Stage(make_aggregation, "videos", options={"flavour": "linear"}),
    "regression": Stage(make_mapper, "scenes", options={"flavour": "regression", "dropout": 0.2}),
    "diffusion": Stage(
        make_mapper, "scenes", options={"dropout": 0.1}, deterministic={"dropout": 0.0, "condition_dropout": 0.0}
    ),
    "translator": Stage(make_translator, "pairs", "val/translation_cosine"),
}


def write_materials(folder: Path, rows: dict[str, int] | None = None, **videos: Any) -> dict[str, str]:
    """Data sets of each kind by name, and the checkpoint of a manifold."""
    return {
        "scenes": write_learnable_scenes(folder / "scenes", rows),
        "videos": write_learnable_videos(folder / "videos", rows, **videos),
        "pairs": write_learnable_pairs(folder / "pairs", rows),
        "manifold": save_manifold(folder / "manifold.ckpt"),
    }


def make_stage(name: str, materials: dict[str, str], seed: int = 0, **options: Any) -> StageModule:
    stage = STAGES[name]
    first = (materials["manifold"],) if name == "remixer" else ()
    return stage.make(*first, seed, **stage.options | options)


def make_deterministic(name: str, materials: dict[str, str], seed: int = 0, **options: Any) -> StageModule:
    """Without dropout and sampling; noise that a diffusion mapper cannot do without belongs to its rows."""
    module = make_stage(name, materials, seed, **STAGES[name].deterministic | options)
    if name == "diffusion":
        module.prepare = lambda batch: with_noise_of_rows(module, batch)
        module.terms = lambda inputs: denoising(module, inputs)
    return module


def with_noise_of_rows(module: StageModule, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    audio = batch["audio"]
    noise = keyed_normal(0, batch["index"].tolist(), audio.shape[1], audio.device)
    timesteps = batch["index"] * 37 % module.mapper.options.train_steps
    return {"visual": batch["global_visual"], "audio": audio, "noise": noise, "timesteps": timesteps}


def denoising(module: StageModule, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    loss = module.mapper.denoising_loss(**inputs)
    return {"loss": loss, "denoising": loss}


def fit_stage(
    name: str,
    materials: dict[str, str],
    folder: Path | str,
    module: StageModule,
    data_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Trainer, Recorder]:
    recorder = Recorder(keep_batches=True)
    fit_options = {key: options.pop(key) for key in ("ckpt_path", "weights_only") if key in options}
    trainer = make_trainer(folder, callbacks=[recorder, *options.pop("callbacks", [])], **options)
    trainer.fit(module, datamodule=make_data(materials[STAGES[name].data], **data_options or {}), **fit_options)
    return trainer, recorder
