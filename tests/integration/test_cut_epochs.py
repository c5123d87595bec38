"""A run that a limit has ended, within an epoch or at its end, goes on as if there had been no limit."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from lightning_ss2a.callbacks import EMATeacher, PairFilter
from tests.integration.test_resume import assert_same_bits, state_of
from tests.manifold_examples import (
    NOT_REPEATABLE,
    SaveAfterValidation,
    make_data,
    make_module,
    make_trainer,
    write_learnable_pairs,
)
from tests.stage_examples import STAGES, make_stage, write_materials

EPOCHS, BATCHES = 3, 6
FAST = ("remixer", "regression", "manifold", "teacher")
"""A stage with a frozen part, one without, and what has loops of its own; the other stages have the loop of these."""


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


class Scalars(Logger):
    """Keeps what a logger writes, by step."""

    name, version = "scalars", 0

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[int, dict[str, float]] = defaultdict(dict)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.written[step] |= {name: float(x) for name, x in metrics.items() if name not in NOT_REPEATABLE}

    def log_hyperparams(self, *_: Any) -> None: ...


class StopAfter(Callback):
    """Stops as ``trainer.max_time`` does, after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.left -= 1
        trainer.should_stop = self.left == 0


class Fail(Callback):
    """Ends a run with an error in its tenth batch, and saves what there is, as ``OnExceptionCheckpoint`` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 9:
            raise RuntimeError("as a fault of ours")

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / "failed.ckpt")


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    return write_materials(folder) | {"noisy": write_learnable_pairs(folder / "noisy", origins=3)}


def fit(name: str, materials: dict[str, str], folder: Path, checkpoint: Path | None = None, **options: Any) -> tuple:
    """Trains a stage, or the manifold, also with a teacher; returns trainer, module and what was logged."""
    options = {"max_epochs": EPOCHS, "enable_checkpointing": True, "callbacks": []} | options
    schedule = options.pop("schedule", "cosine")
    if name in STAGES:
        module = make_stage(name, materials, schedule=schedule, warmup_steps=4)
        data = make_data(materials[STAGES[name].data])
    else:
        accumulate = {"accumulate_batches": options.pop("accumulate_grad_batches", 1)}
        module, data = make_module(schedule=schedule, **accumulate), make_data(materials["noisy"])
    if name == "teacher":
        options["callbacks"] = [*options["callbacks"], EMATeacher(teacher_epochs=1), PairFilter(min_pairs=10)]
    trainer = make_trainer(folder, logger=Scalars(), **options)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer, module, trainer.logger.written


def cut(name: str, materials: dict[str, str], folder: Path, callbacks: list[Callback], **options: Any) -> tuple:
    """Trains until a limit; leaves ``last.ckpt``, what validations saved, and ``after.ckpt``, of the trainer's end."""
    last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    run = fit(name, materials, folder, callbacks=[last, SaveAfterValidation(folder), *callbacks], **options)
    run[0].save_checkpoint(folder / "after.ckpt")
    return run


def assert_goes_on(resumed: tuple, whole: tuple) -> None:
    assert_same_bits(state_of(*resumed[:2]), state_of(*whole[:2]))
    assert_same_bits(resumed[1].state_dict(), whole[1].state_dict())
    written = resumed[2]
    assert written
    expected = {step: values for step, values in whole[2].items() if step >= min(written)}
    assert written.keys() == expected.keys()
    for step, values in expected.items():
        missing = {} if step > min(written) else values.keys() - written[step].keys()
        assert written[step] == {name: value for name, value in values.items() if name not in missing}, step


def assert_all_go_on(name: str, materials: dict[str, str], folder: Path, whole: tuple, **options: Any) -> None:
    checkpoints = sorted(folder.glob("*.ckpt"))
    assert folder / "after.ckpt" in checkpoints
    for checkpoint in checkpoints:
        assert_goes_on(fit(name, materials, folder / "resumed", checkpoint, **options), whole)


@pytest.mark.parametrize("name", [*FAST, *(slow(name) for name in STAGES if name not in FAST)])
def test_an_epoch_that_was_cut_is_finished(name: str, materials, tmp_path: Path):
    whole = fit(name, materials, tmp_path / "whole")
    cut(name, materials, tmp_path, [StopAfter(9)])
    assert_all_go_on(name, materials, tmp_path, whole)


@pytest.mark.parametrize(
    ("name", "batches", "options"),
    [
        ("regression", 3, {"accumulate_grad_batches": 4}),  # before the first step
        slow("manifold", 3, {"accumulate_grad_batches": 4}),
        slow("regression", 9, {"accumulate_grad_batches": 4, "val_check_interval": 3}),
        ("manifold", 9, {"accumulate_grad_batches": 4, "val_check_interval": 3}),
        ("regression", 9, {"val_check_interval": 3}),
        slow("manifold", 9, {"val_check_interval": 3}),
        slow("regression", 9, {"check_val_every_n_epoch": 2}),
        ("manifold", 9, {"check_val_every_n_epoch": 2}),
        ("regression", 12, {"check_val_every_n_epoch": 2}),
        slow("manifold", 12, {"check_val_every_n_epoch": 2}),
    ],
    ids=str,
)
def test_other_steps_and_validations(name: str, materials, tmp_path: Path, batches: int, options: dict[str, Any]):
    whole = fit(name, materials, tmp_path / "whole", **options)
    cut(name, materials, tmp_path, [StopAfter(batches)], **options)
    assert_all_go_on(name, materials, tmp_path, whole, **options)


@pytest.mark.parametrize("name", ["regression", "manifold"])
def test_a_batch_that_failed_is_trained_on_again(name: str, materials, tmp_path: Path):
    whole = fit(name, materials, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="as a fault"):
        fit(name, materials, tmp_path, callbacks=[Fail(tmp_path)])
    assert_goes_on(fit(name, materials, tmp_path / "resumed", tmp_path / "failed.ckpt"), whole)


@pytest.mark.parametrize("limit", [{"max_steps": EPOCHS * BATCHES, "max_epochs": -1}, {}], ids=["steps", "epochs"])
@pytest.mark.parametrize(
    ("name", "steps"), [("regression", 9), ("manifold", 12), slow("regression", 12), slow("manifold", 9)]
)
def test_steps_are_followed_by_more_steps_or_epochs(name: str, materials, tmp_path: Path, steps: int, limit: dict):
    """Of a constant learning rate: another would follow the limit."""
    whole = fit(name, materials, tmp_path / "whole", schedule="constant", **limit)
    cut(name, materials, tmp_path, [], schedule="constant", max_steps=steps, max_epochs=-1)
    assert_all_go_on(name, materials, tmp_path, whole, schedule="constant", **limit)
