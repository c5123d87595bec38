"""A small data set of pairs that can be learned, and what trains on it in well under a second."""

import copy
import inspect
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.data import FieldSpec, LabelHead, ShardDataModule, ShardWriter
from lightning_ss2a.training import ManifoldModule

VISUAL_WIDTH, AUDIO_WIDTH, LABELS = 10, 8, 15
CLASSES = ("cat", "dog", "owl")
DETERMINISTIC = {"dropout": 0.0, "embedding": "mean"}
NOT_REPEATABLE = ("train/pairs_per_second",)


def write_learnable_pairs(
    folder: Path,
    rows: dict[str, int] | None = None,
    *,
    seed: int = 0,
    views: int | None = 2,
    classes: tuple[str, ...] = CLASSES,
    with_head: bool = True,
    origins: int = 1,
) -> str:
    """Pairs whose two sides are noisy linear images of one cause; groups of two rows, of one origin; norms vary."""
    random = np.random.default_rng(seed)
    to_visual, to_audio = random.normal(size=(4, VISUAL_WIDTH)), random.normal(size=(4, AUDIO_WIDTH))
    head = LabelHead(
        torch.from_numpy(random.normal(size=(LABELS, AUDIO_WIDTH))).float(),
        torch.from_numpy(random.normal(size=LABELS)).float(),
        tuple(f"label{i}" for i in range(LABELS)),
    )
    fields = {
        "visual": FieldSpec(width=VISUAL_WIDTH, encoder="eye", views=views, dtype="float32"),
        "audio": FieldSpec(width=AUDIO_WIDTH, encoder="ear", dtype="float32"),
    }
    made_of = {"provenance": "made for a test", "licence": "CC0", "label_head": head if with_head else None}
    with ShardWriter(folder, kind="pairs", fields=fields, classes=list(classes), block_rows=8, **made_of) as writer:
        first = 0
        for split, count in (rows or {"train": 53, "validation": 23}).items():
            cause = random.normal(size=(count, 4))
            number = np.arange(first, first + count)
            visual = cause @ to_visual + 0.5
            writer.write(
                split,
                {
                    "visual": noisy(random, np.repeat(visual[:, None], views, 1) if views else visual),
                    "audio": noisy(random, cause @ to_audio + 0.3),
                    "class_index": (number % len(classes)).astype(np.int32),
                    "pair_origin": (number // 2 % origins).astype(np.uint8),
                    "group": number // 2,
                    "key": np.array([f"row{n}" for n in number], dtype=np.bytes_),
                },
            )
            first += count + count % 2
    return str(folder)


def noisy(random: np.random.Generator, values: np.ndarray) -> np.ndarray:
    return (values + 0.3 * random.normal(size=values.shape)).astype(np.float32)


def make_data(dataset: str, **options: Any) -> ShardDataModule:
    """Batches of 8: 6 an epoch of 53 rows, and 5 rows left out; two validation batches, of 12 and 11 of 23 rows."""
    plain = {"batch_size": 8, "evaluation_batch_size": 12, "residency": "memory"}
    return ShardDataModule(dataset, **{**plain, **options})


def make_module(seed: int = 0, **options: Any) -> ManifoldModule:
    """A tiny module, with dropout and sampling unless told otherwise."""
    torch.manual_seed(seed)
    plain = {
        "width": 12,
        "projector_widths": (16, 16),
        "reconstructor_widths": (16, 16, 12),
        "learning_rate": 3e-3,
        "top_n": 4,
    }
    return ManifoldModule(VISUAL_WIDTH, AUDIO_WIDTH, **in_groups(ManifoldModule, {**plain, **options}))


def in_groups(module: type, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a module from options by their own names, each put into every group that has it."""
    parameters = inspect.signature(module.__init__).parameters
    groups = {name: p.default for name, p in parameters.items() if is_dataclass(p.default)}
    members = {name: {field.name for field in fields(group)} for name, group in groups.items()}
    arguments = {name: value for name, value in options.items() if name in parameters and name not in groups}
    assert options.keys() <= set().union(arguments, *members.values())
    for name, group in groups.items():
        given = {option: value for option, value in options.items() if option in members[name]}
        arguments[name] = replace(group, **given)
    return arguments


def make_trainer(folder: Path | str, **options: Any) -> Trainer:
    """A silent trainer on one thread of the CPU: with tensors this small, more threads only wait for each other."""
    torch.set_num_threads(1)
    plain = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        "default_root_dir": str(folder),
    }
    return Trainer(**{**plain, **options})


class Recorder(Callback):
    """Keeps what was logged: training terms by batch, validation metrics by epoch; and batches, on request."""

    def __init__(self, keep_batches: bool = False) -> None:
        self.keep_batches = keep_batches
        self.batches: list[dict[str, Tensor]] = []
        self.training: dict[tuple[int, int], dict[str, float]] = {}
        self.validation: list[dict[str, float]] = []
        self.learning_rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.learning_rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if self.keep_batches:
            self.batches.append(copy.deepcopy(batch))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.training[trainer.current_epoch, batch_idx] = logged(trainer, "train/")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validation.append(logged(trainer, "val/"))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validation.append(logged(trainer, "test/"))


class SaveAfterValidation(Callback):
    """Saves a checkpoint after each validation, named by the number of batches trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.fit_loop.epoch_loop.total_batch_idx + 1:03}.ckpt")


def logged(trainer: Trainer, prefix: str) -> dict[str, float]:
    metrics = trainer.callback_metrics.items()
    return {name: float(x) for name, x in metrics if name.startswith(prefix) and name not in NOT_REPEATABLE}


def parameters_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Largest absolute difference between tensors of the same names."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)
