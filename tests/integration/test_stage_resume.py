"""Runs of all stages end with the same bits whether they were stopped or not, with dropout and sampling on."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.integration.test_resume import Kill, assert_same_bits, state_of
from tests.manifold_examples import (
    Recorder,
    SaveAfterValidation,
    largest_difference,
    make_data,
    make_trainer,
    parameters_of,
)
from tests.processes import status_of
from tests.stage_examples import STAGES, make_stage, write_materials

EPOCHS, BATCHES = 4, 6
KILLED_AT = 2 * BATCHES + 4  # batches trained before the signal: in the middle of epoch 2
OPTIONS: dict[str, dict[str, Any]] = {
    "remixer": {"validate_cycle_mix": True, "draws": 2},
    "aggregation": {},
    "diffusion": {"condition_dropout": 0.3, "guidance_scale": 2.0},
    "regression": {},
    "translator": {"ccmr_alpha": 0.35},
    "linear": {},
}


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_materials(tmp_path_factory.mktemp("data"))


def run(
    name: str,
    materials: dict[str, str],
    folder: Path,
    callbacks: list | None = None,
    checkpoint: Path | None = None,
    data: dict[str, Any] | None = None,
    **trainer_options: Any,
) -> tuple[Trainer, Any, Recorder]:
    recorder = Recorder()
    module = make_stage(name, materials, schedule="cosine", warmup_steps=4, **OPTIONS[name])
    plain = {"max_epochs": EPOCHS, "enable_checkpointing": True, "gradient_clip_val": 1.0}
    trainer = make_trainer(folder, callbacks=[recorder, *(callbacks or [])], **plain | trainer_options)
    dataset = make_data(materials[STAGES[name].data], **data or {})
    trainer.fit(module, datamodule=dataset, ckpt_path=checkpoint, weights_only=True)
    return trainer, module, recorder


def every_steps(folder: Path, steps: int) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=steps)


def assert_same_run(resumed: tuple, whole: tuple) -> None:
    """Weights, AdamW, schedule, baselines, and all that was logged after the checkpoint."""
    assert_same_bits(state_of(*resumed[:2]), state_of(*whole[:2]))
    assert_same_bits(resumed[1].state_dict(), whole[1].state_dict())
    assert_same_bits(resumed[1].statistics.state_dict(), whole[1].statistics.state_dict())
    again, first = resumed[2], whole[2]
    assert 0 < len(again.training) < len(first.training)
    assert list(first.training)[-len(again.training) :] == list(again.training)
    for batch, terms in again.training.items():  # the norm is that of the latest step: there is none before the first
        missing = first.training[batch].keys() - terms.keys()
        assert missing <= {"train/gradient_norm"}
        assert terms == {name: value for name, value in first.training[batch].items() if name not in missing}
    assert not missing
    assert len(again.validation) > 0
    assert first.validation[-len(again.validation) :] == again.validation


@pytest.mark.parametrize(
    "name",
    [slow(name) if name in ("linear", "regression") else name for name in STAGES],  # that draw less or nothing
)
def test_a_resumed_run_ends_with_the_same_bits(name: str, materials, tmp_path: Path):
    """From the middle of an epoch, from an epoch's last batch, and from after its validation."""
    folder = tmp_path / "checkpoints"
    whole = run(name, materials, tmp_path, [every_steps(folder, 3), SaveAfterValidation(folder)])
    assert len(whole[2].training) == EPOCHS * BATCHES
    for checkpoint in ("step=9.ckpt", "step=12.ckpt", "012.ckpt"):
        resumed = run(name, materials, tmp_path / "resumed", checkpoint=folder / checkpoint)
        assert_same_run(resumed, whole)
    before = parameters_of(make_stage(name, materials, **OPTIONS[name]))
    assert largest_difference(parameters_of(whole[1]), before) > 0.003


OTHER: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "stream": ({"residency": "stream", "shuffle_rows": 16}, {}, 15),
    "one row a group": ({"rows_per_group": "one", "batch_size": 4}, {}, 7),
    "accumulated": ({}, {"accumulate_grad_batches": 2}, 5),
    "accumulated unevenly": ({}, {"accumulate_grad_batches": 4}, 4),
}
"""Options of the data, of the trainer, and the step of the checkpoint."""


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("remixer", "stream"),
        ("translator", "one row a group"),
        ("translator", "accumulated"),
        ("remixer", "accumulated unevenly"),
        slow("translator", "stream"),
        slow("remixer", "one row a group"),
        slow("remixer", "accumulated"),
        slow("translator", "accumulated unevenly"),
    ],
)
def test_other_data_and_accumulation(name: str, other: str, materials, tmp_path: Path):
    data, trainer_options, steps = OTHER[other]
    folder = tmp_path / "checkpoints"
    whole = run(name, materials, tmp_path, [every_steps(folder, steps)], data=data, **trainer_options)
    resumed = run(
        name, materials, tmp_path / "resumed", None, folder / f"step={steps}.ckpt", data=data, **trainer_options
    )
    assert_same_run(resumed, whole)


def test_batches_that_wait_for_their_step_are_known(materials, tmp_path: Path):
    """A checkpoint from there would lose them, so what saves checkpoints can ask."""
    waiting = []

    class Ask(Recorder):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            waiting.append(pl_module.has_pending_batches)

    run("regression", materials, tmp_path, [Ask()], max_epochs=1, accumulate_grad_batches=4)
    assert waiting == [True, True, True, False, True, False]


# -------------------------------------------------------------------- a run that is killed


def train_until_killed(materials: dict[str, str], folder: Path) -> None:
    run("remixer", materials, folder, [every_steps(folder, 5), Kill(KILLED_AT)])


def test_a_killed_remixer_resumes_to_the_same_bits(materials: dict[str, str], tmp_path: Path):
    killed = tmp_path / "killed"
    assert status_of(train_until_killed, materials, killed) == -signal.SIGKILL
    checkpoint = killed / "step=15.ckpt"
    progress = torch.load(checkpoint, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    assert progress["ready"] == 3
    whole = run("remixer", materials, tmp_path / "whole")
    assert_same_run(run("remixer", materials, tmp_path / "resumed", checkpoint=checkpoint), whole)
