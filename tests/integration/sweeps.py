"""Whole sweeps in a folder of their own: a tiny manifold on a small data set, and callbacks that make trouble."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import yaml

from tests.manifold_examples import write_learnable_pairs

BASE = """
seed_everything: 0
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 2
  check_val_every_n_epoch: 1
  num_sanity_val_steps: 0
  enable_model_summary: false
  enable_checkpointing: false
  log_every_n_steps: 1
  use_distributed_sampler: false
  callbacks:
    - class_path: troubles.Trouble
model:
  class_path: ManifoldModule
  init_args:
    manifold: {width: 12, projector_widths: [16, 16], reconstructor_widths: [16]}
    optimization: {learning_rate: 3.0e-3}
    measuring: {top_n: 4}
data:
  class_path: ShardDataModule
  init_args: {datasets: pairs, batch_size: 8, evaluation_batch_size: 5}
"""
TROUBLES = """
import os
import signal
import time

import torch
from lightning.pytorch import Callback


class Trouble(Callback):
    def __init__(self, kind: str = "none", sleep: float = 0.0, file: str = ""):
        self.kind, self.sleep, self.file = kind, sleep, file

    def on_train_epoch_start(self, trainer, pl_module):
        time.sleep(self.sleep)
        if self.file and os.path.exists(self.file):
            return
        if self.file and self.kind != "none":
            open(self.file, "w").close()
        if self.kind == "memory":
            raise MemoryError("no memory for 12 tensors")
        if self.kind == "torch":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12 GiB")
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "wrong":
            raise ValueError("a width of 3 makes no sense")

    def on_train_epoch_end(self, trainer, pl_module):
        if self.kind == "nan":
            trainer.callback_metrics["val/reconstruction_cosine"] = torch.tensor(float("nan"))
"""
COSINE = "val/reconstruction_cosine"
KIND, SLEEP = "trainer.callbacks.Trouble.kind", "trainer.callbacks.Trouble.sleep"
GRID = {
    "name": "grid",
    "base": "base.yaml",
    "metric": COSINE,
    "sampler": "grid",
    "parameters": {
        "model.optimization.learning_rate": {"choices": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]},
        "model.manifold.dropout": {"choices": [0.0, 0.1, 0.2, 0.3]},
    },
}
"""24 points."""


def write_base(folder: Path) -> Path:
    """A folder with a data set, a base configuration and the module of troubles."""
    write_learnable_pairs(folder / "pairs")
    (folder / "base.yaml").write_text(BASE)
    (folder / "troubles.py").write_text(TROUBLES)
    return folder


def write_sweep(folder: Path, options: dict[str, Any] | None = None, **more: Any) -> None:
    """``sweep.yaml``: a sweep of these options; the plain grid of 24 points unless told otherwise."""
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**(GRID if options is None else options), **more}))


def environment(folder: Path) -> dict[str, str]:
    paths = f"{folder}:{Path(__file__).parents[2]}"
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """Start ``ss2a sweep`` of the folder's file."""
    command = [sys.executable, "-c", "from lightning_ss2a.cli.ss2a import main; main()", "sweep", "-c", "sweep.yaml"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *arguments], cwd=folder, env=environment(folder), **pipes)


def sweep(folder: Path, *arguments: str, status: int = 0) -> str:
    """What a sweep prints."""
    process = start(folder, *arguments)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == status, printed
    assert "Traceback" not in printed
    return printed


def lightning_fit(folder: Path, config: Path, output: str) -> None:
    """Run a configuration alone, with its output elsewhere."""
    logger = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": output, "name": "", "version": "alone"}}
    code = "from lightning_ss2a.cli.lightning import main; main()"
    command = [sys.executable, "-c", code, "fit", "-c", str(config), f"--trainer.logger={json.dumps(logger)}"]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def study(folder: Path, name: str = "grid") -> optuna.Study:
    """The study, as Optuna's own tools open it."""
    return optuna.load_study(storage=f"sqlite:///{folder}/runs/sweeps/{name}/study.db", study_name=name)


def complete(folder: Path, name: str = "grid") -> list[optuna.trial.FrozenTrial]:
    """Complete trials by slot."""
    trials = study(folder, name).get_trials(states=[optuna.trial.TrialState.COMPLETE])
    return sorted(trials, key=lambda trial: trial.user_attrs["slot"])


def workers_in(folder: Path) -> list[int]:
    """Worker processes, other ranks included, whose current folder is this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink() == folder and b"sweep_worker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_for_no_workers(folder: Path, seconds: float = 20) -> None:
    """Workers end soon after their sweep, however that ended."""
    until = time.monotonic() + seconds
    while workers_in(folder):
        assert time.monotonic() < until, f"still there: {workers_in(folder)}"
        time.sleep(0.2)


def wait_for_trials(process: subprocess.Popen, folder: Path, number: int, name: str = "grid") -> None:
    """Wait until so many trials are complete."""
    until = time.monotonic() + 120
    while not (folder / "runs/sweeps" / name / "sweep.yaml").exists() or len(complete(folder, name)) < number:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.1)


def kill(process: subprocess.Popen) -> None:
    """The process alone, as the system or a user does it."""
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
