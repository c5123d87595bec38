"""What a run does as a part of a trial: reports its validations, stops when told to, has no board of its own."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_ss2a.callbacks import HyperparameterBoard
from lightning_ss2a.sweeps.running.trial_callback import TrialCallback


class Asked:
    """Says stop at a step; keeps what it heard."""

    def __init__(self, stop_at: int = 99) -> None:
        self.heard: list[tuple[int, float]] = []
        self.stop_at = stop_at

    def __call__(self, step: int, value: float) -> bool:
        self.heard.append((step, value))
        return step >= self.stop_at


def validate(callback: TrialCallback, values: list[float], broadcast: Any = lambda stop: stop, **more: Any) -> Any:
    trainer = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        should_stop=False,
        state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(broadcast=broadcast),
    )
    vars(trainer).update(more)
    for epoch, value in enumerate(values):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/x": torch.tensor(value)}
        callback.on_validation_end(trainer, None)
    return trainer


def test_every_batch_says_that_the_run_moves_on(tmp_path: Path):
    batches = []
    callback = TrialCallback(None, None, lambda: batches.append(1))
    limits = {"limit_train_batches": 3, "limit_val_batches": 2, "num_sanity_val_steps": 0, "limit_test_batches": 4}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, callbacks=[callback], default_root_dir=tmp_path, **limits, **quiet)
    trainer.fit(BoringModel())
    assert len(batches) == 5
    trainer.test(BoringModel(), verbose=False)
    assert len(batches) == 9


def test_each_validation_is_reported_by_epochs_done():
    asked = Asked()
    trainer = validate(TrialCallback("val/x", asked), [1.0, 3.0, 2.0])
    assert asked.heard == [(1, 1.0), (2, 3.0), (3, 2.0)]
    assert not trainer.should_stop


def test_a_run_stops_when_told_to():
    callback = TrialCallback("val/x", Asked(stop_at=2))
    assert validate(callback, [1.0, 1.0]).should_stop
    assert callback.pruned


def test_a_rank_without_a_connection_stops_with_the_others():
    callback = TrialCallback("val/x", None)
    assert validate(callback, [1.0], broadcast=lambda stop: True, is_global_zero=False).should_stop
    assert callback.pruned


def test_what_is_not_reported():
    asked = Asked()
    validate(TrialCallback("val/x", asked), [1.0], sanity_checking=True)
    validate(TrialCallback("val/x", asked), [1.0], state=SimpleNamespace(fn="validate"))
    validate(TrialCallback("val/x", asked), [math.nan])
    validate(TrialCallback("val/other", asked), [1.0])
    validate(TrialCallback(None, asked), [1.0])
    assert asked.heard == []


class Started(Callback):
    """Keeps the callbacks of a training that starts."""

    names: tuple[str, ...] = ()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.names = tuple(type(callback).__name__ for callback in trainer.callbacks)


def test_a_run_s_own_board_is_taken_out_and_nothing_else(tmp_path: Path):
    started = Started()
    callbacks = [HyperparameterBoard(), TrialCallback(None, None), started]
    trainer = Trainer(
        default_root_dir=tmp_path,
        callbacks=callbacks,
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(BoringModel())
    assert started.names == ("TrialCallback", "Started")
