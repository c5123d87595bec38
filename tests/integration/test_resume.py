"""A run that was killed and resumed ends with the same bits as one that was not."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ss2a.callbacks import EMATeacher, PairFilter
from tests.manifold_examples import (
    Recorder,
    SaveAfterValidation,
    largest_difference,
    make_data,
    make_module,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)
from tests.processes import status_of

EPOCHS, BATCHES = 6, 6
KILLED_AT = 2 * BATCHES + 4  # batches trained before the signal: in the middle of epoch 2


def teacher_and_filter() -> list[Callback]:
    """Two batches of annotated rows in epoch 0; then a student, on what the filter keeps of 53 rows."""
    return [EMATeacher(teacher_epochs=1, consistency_rampup_epochs=2), PairFilter(min_pairs=10, every_n_epochs=3)]


RUNS: dict[str, dict[str, Any]] = {
    "plain": {"steps": 15},
    "one row a group": {"steps": 7, "data": {"rows_per_group": "one", "batch_size": 4}},
    "stream": {"steps": 15, "data": {"residency": "stream", "shuffle_rows": 16}},
    "accumulated": {"steps": 8, "module": {"accumulate_batches": 2}},
    "accumulated unevenly": {"steps": 5, "module": {"accumulate_batches": 4, "alternation": "shared_forward"}},
    "end of an epoch": {"steps": 12},
    "teacher and filter": {"steps": 13, "callbacks": teacher_and_filter},
}
"""Optimiser step after which a checkpoint is taken (again at its multiples), options of module and data, callbacks."""
SLOW = ("one row a group", "accumulated")
BATCHES_BEFORE = {"plain": 3, "stream": 3, "accumulated": 4, "accumulated unevenly": 4}
"""Batches of epoch 2 that were trained on before the newest checkpoint, where it is from the middle of that epoch."""


def module_options(run: dict[str, Any]) -> dict[str, Any]:
    """Dropout and sampling are on, as by default."""
    return {"schedule": "cosine", "warmup_steps": 4, "gradient_clip_norm": 1.0, **run.get("module", {})}


class Kill(Callback):
    """Ends the process as a power cut would, after some batches."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run_trainer(dataset: str, folder: Path, run: dict, callbacks: list, checkpoint: Path | None = None, **options):
    recorder, module = Recorder(), make_module(**module_options(run))
    every = ModelCheckpoint(folder / "checkpoints", "{step}", save_top_k=-1, every_n_train_steps=run["steps"])
    plain = {"max_epochs": EPOCHS, "enable_checkpointing": True}
    callbacks = [every, recorder, *run.get("callbacks", list)(), *callbacks]
    trainer = make_trainer(folder, callbacks=callbacks, **{**plain, **options})
    trainer.fit(module, datamodule=make_data(dataset, **run.get("data", {})), ckpt_path=checkpoint, weights_only=True)
    return trainer, module, recorder


def state_of(trainer: Trainer, module: Any) -> dict[str, Any]:
    return {
        "parameters": parameters_of(module),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
    }


def callback_states(trainer: Trainer) -> list[str]:
    """States of what is part of the training, as text that tells every number."""
    parts = [callback for callback in trainer.callbacks if isinstance(callback, EMATeacher | PairFilter)]
    return [str({name: getattr(x, "tolist", lambda x=x: x)() for name, x in p.state_dict().items()}) for p in parts]


def assert_same_bits(found: Any, expected: Any, where: str = "") -> None:
    assert type(found) is type(expected), where
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_same_bits(found[name], value, f"{where}/{name}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for i, value in enumerate(expected):
            assert_same_bits(found[i], value, f"{where}/{i}")
    else:
        assert found == expected, where


def train_until_killed(name: str, dataset: str, folder: Path) -> None:
    run_trainer(dataset, folder / name, RUNS[name], [Kill(KILLED_AT)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_pairs(tmp_path_factory.mktemp("pairs"), origins=3)


def checkpoint_of(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in RUNS])
def test_a_killed_run_resumes_to_the_same_bits(name: str, dataset: str, tmp_path: Path):
    """It died by SIGKILL, in a process of its own."""
    assert status_of(train_until_killed, name, dataset, tmp_path / "killed") == -signal.SIGKILL
    checkpoint = checkpoint_of(tmp_path / "killed" / name)
    if name in BATCHES_BEFORE:
        state = torch.load(checkpoint, weights_only=True)
        assert state["epoch"] == 2
        assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == BATCHES_BEFORE[name]
    run = RUNS[name]
    trainer, module, recorder = run_trainer(dataset, tmp_path / "whole", run, [])
    resumed_trainer, resumed_module, resumed = run_trainer(dataset, tmp_path / "resumed", run, [], checkpoint)
    assert_same_bits(state_of(resumed_trainer, resumed_module), state_of(trainer, module))
    assert_same_bits(resumed_module.statistics.state_dict(), module.statistics.state_dict())
    assert 0 < len(resumed.training) < len(recorder.training)
    assert len(recorder.training) == EPOCHS * BATCHES or "callbacks" in run  # stages differ in length
    stepped = [batch for batch, terms in resumed.training.items() if terms]  # nothing to log before the first step
    assert stepped == list(recorder.training)[-len(stepped) :]
    assert [resumed.training[batch] for batch in stepped] == [recorder.training[batch] for batch in stepped]
    assert len(stepped) > len(resumed.training) - run.get("module", {}).get("accumulate_batches", 1)
    assert len(resumed.validation) >= EPOCHS - 3
    assert recorder.validation[-len(resumed.validation) :] == resumed.validation
    assert largest_difference(parameters_of(make_module().manifold), parameters_of(module.manifold)) > 0.01
    assert callback_states(resumed_trainer) == callback_states(trainer)


@pytest.mark.parametrize(
    ("interval", "accumulate"),
    [pytest.param(2, 1, marks=pytest.mark.slow), (3, 2), pytest.param(5, 2, marks=pytest.mark.slow), (1, 4), (5, 4)],
)
def test_a_checkpoint_between_the_batches_of_a_step_keeps_them(dataset, tmp_path: Path, interval: int, accumulate: int):
    """Validation in the middle of an epoch saves checkpoints wherever it falls; every one of them resumes exactly."""
    run = {"steps": 10_000, "module": {"accumulate_batches": accumulate}}
    saving = SaveAfterValidation(tmp_path / "validated")
    options = {"val_check_interval": interval, "max_epochs": 2}
    trainer, module, _ = run_trainer(dataset, tmp_path / "whole", run, [saving], **options)
    checkpoints = sorted((tmp_path / "validated").glob("*.ckpt"))
    assert len(checkpoints) == 2 * (BATCHES // interval)
    pending = [len(torch.load(path, weights_only=True).get("pending_batches", [])) for path in checkpoints]
    batches = [batch for batch in range(1, BATCHES + 1) if batch % interval == 0]
    assert pending == 2 * [0 if batch == BATCHES else batch % accumulate for batch in batches]
    for checkpoint in checkpoints[:: max(1, len(checkpoints) // 3)]:
        resumed = run_trainer(dataset, tmp_path / "resumed", run, [], checkpoint, **options)
        assert_same_bits(state_of(*resumed[:2]), state_of(trainer, module), checkpoint.name)


def test_another_seed_is_another_run(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    modules = []
    for seed in ("0", "1", "0"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        modules.append(run_trainer(dataset, tmp_path / seed, {"steps": 99}, [], max_epochs=1)[1])
    first, other, again = (parameters_of(module) for module in modules)
    assert largest_difference(first, again) == 0
    assert largest_difference(first, other) > 1e-3
