"""A fit in a Slurm job that is requeued; Slurm is its variables, its signals, and a scontrol that keeps its calls."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_ss2a.callbacks import GracefulInterrupt
from lightning_ss2a.callbacks.slurm import requeued_checkpoint
from tests.callbacks.test_interrupt import Send, fit, handlers, interrupt
from tests.cli.test_lightning import CONFIG, TINY
from tests.integration.test_resume import assert_same_bits
from tests.manifold_examples import largest_difference, make_trainer, write_learnable_pairs
from tests.processes import run_command

JOB = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}
JOB |= dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "0")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def scontrol(tmp_path: Path) -> Path:
    """A folder with a scontrol that writes its arguments into the file ``calls``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n')
    (folder / "scontrol").chmod(0o755)
    return folder


@pytest.fixture
def job(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with this process in a job."""
    monkeypatch.setenv("PATH", f"{scontrol}:{os.environ['PATH']}")
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    return scontrol / "calls"


class SendBefore(Callback):
    """Sends a signal before training starts."""

    def on_fit_start(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("send", [Send(signal.SIGUSR1, at_batch=3, times=2), SendBefore()], ids=["training", "before"])
def test_the_step_is_finished_and_the_job_requeued(tmp_path: Path, dataset, job: Path, send: Callback):
    before = handlers()
    interrupt(tmp_path, dataset, send)
    assert handlers() == before
    assert job.read_text() == "requeue 4711\n"
    checkpoint = requeued_checkpoint(make_trainer(tmp_path))
    assert checkpoint is not None
    assert checkpoint.parent == tmp_path / "checkpoints"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    resumed = fit(tmp_path / "resumed", dataset, [GracefulInterrupt()], checkpoint)
    assert largest_difference(resumed, fit(tmp_path / "whole", dataset, [])) == 0.0


def test_sigterm_saves_for_the_job_and_asks_for_nothing(tmp_path: Path, dataset, job: Path):
    interrupt(tmp_path, dataset, Send(signal.SIGTERM, at_batch=3))
    assert requeued_checkpoint(make_trainer(tmp_path)) is not None
    assert not job.exists()


def test_the_checkpoint_belongs_to_the_job_and_the_command(tmp_path: Path, dataset, job: Path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    interrupt(tmp_path, dataset, Send(signal.SIGUSR1, at_batch=3))
    assert job.read_text() == "requeue 4700_3\n"
    assert requeued_checkpoint(make_trainer(tmp_path)) is not None
    with monkeypatch.context() as patch:
        patch.setattr("sys.argv", ["lightning", "fit", "-c", "other.yaml"])
        assert requeued_checkpoint(make_trainer(tmp_path)) is None
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert requeued_checkpoint(make_trainer(tmp_path)) is None


def test_a_refused_requeue_is_told(tmp_path: Path, dataset, job: Path, caplog):
    (job.parent / "scontrol").write_text("#!/bin/sh\necho Requeue is disabled >&2\nexit 1\n")
    with caplog.at_level("INFO"):
        interrupt(tmp_path, dataset, Send(signal.SIGUSR1, at_batch=3))
    assert "scontrol requeue 4711 failed (Requeue is disabled): submit the job again yourself" in caplog.text


def test_a_run_without_a_logger_goes_on_from_the_folder_of_the_one_before(tmp_path: Path, dataset, job: Path):
    interrupt(tmp_path / "version_0", dataset, Send(signal.SIGUSR1, at_batch=3))
    checkpoint = requeued_checkpoint(make_trainer(tmp_path / "version_1"))
    assert checkpoint is not None
    assert checkpoint.parent == tmp_path / "version_0" / "checkpoints"


def test_the_command_goes_on_in_its_own_job_only(tmp_path: Path, scontrol: Path):
    """The same line thrice, each time cut after 7 of 18 batches, gives what one run gives."""
    folder = tmp_path / "work"
    write_learnable_pairs(folder / "pairs")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "hpc_ckpt_1.ckpt").touch()  # of another job in this folder
    send = f"{{class_path: {Send.__module__}.Send, init_args: {{number: {signal.SIGUSR1:d}, at_batch: 7}}}}"
    (folder / "cut.yaml").write_text(f"base: {CONFIG}\ntrainer: {{callbacks+: [{send}]}}\n")
    line = "lightning fit -c {} -c tiny.yaml --data.datasets=pairs --trainer.max_epochs=3"
    inside = os.environ | JOB | {"PATH": f"{scontrol}:{os.environ['PATH']}"}
    runs = [run_command(line.format("cut.yaml"), folder, inside, status) for status in (1, 1, 0)]
    assert ["was requeued" in printed for printed in runs] == [False, True, True]
    assert (scontrol / "calls").read_text() == 2 * "requeue 4711\n"
    other = run_command(line.format("cut.yaml"), folder, inside | {"SLURM_JOB_ID": "4712"}, 1)
    assert "Restored" not in other
    run_command(line.format(CONFIG), folder, dict(os.environ))
    cut, whole = (
        torch.load(folder / f"runs/manifold/version_{n}/checkpoints/last.ckpt", weights_only=True) for n in (2, 4)
    )
    assert_same_bits(cut["state_dict"], whole["state_dict"])
    assert [path.name for path in folder.glob("*.ckpt")] == ["hpc_ckpt_1.ckpt"]
