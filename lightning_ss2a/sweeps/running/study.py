"""The study of a sweep: its folder, its storage, its trials in the queue."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import write_whole
from lightning_ss2a.sweeps.base_files import ConfigFile
from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.running.optuna_classes import build_pruner, build_sampler
from lightning_ss2a.sweeps.running.queue import TrialQueue
from lightning_ss2a.sweeps.running.storage import open_storage
from lightning_ss2a.sweeps.running.trial_runs import Runs

SWEEP_FILE = "sweep.yaml"


def open_study(
    runs: Runs, storage: optuna.storages.BaseStorage | None = None, tell: Callable[[str], None] = lambda line: None
) -> TrialQueue:
    """Opens the study of a sweep, or makes it, and queues its trials.

    Args:
        runs: of the sweep.
        storage: that holds the study; None: the one that the sweep names.
        tell: takes a line to print.

    Raises:
        InputError: what can be told before anything runs: a storage that is not there, a folder of another sweep, a
            class that Optuna does not have.
    """
    sweep = runs.sweep
    sampler, pruner, points = build_sampler(sweep), build_pruner(sweep.pruner), runs.points()
    _check_folder(sweep.root)
    if storage is None:
        storage = open_storage(sweep.storage, sweep.root)
    queue = TrialQueue(storage, sweep.name, sweep.space, sweep.objectives, sampler, pruner)
    if not queue.exists and (sweep.root / SWEEP_FILE).exists():
        raise InputError(
            f"{sweep.root} holds a sweep that the storage does not know; name its storage, or take another --name"
        )
    queue.open(sweep.question())
    queue.fill(points, tell)
    sweep.root.mkdir(parents=True, exist_ok=True)
    options = yaml.safe_dump(_given(sweep, sweep), sort_keys=False)
    write_whole(sweep.root / SWEEP_FILE, f"# ss2a sweep -c this file: goes on with the sweep.\n{options}")
    return queue


def _given(value: Any, sweep: Sweep) -> Any:
    """Finds plain values of what a sweep file says, without the options that it leaves out."""
    if is_dataclass(value):
        parts = {part.name: getattr(value, part.name) for part in fields(value)}
        return {name: _given(part, sweep) for name, part in parts.items() if part is not None}
    if isinstance(value, dict):
        return {name: _given(part, sweep) for name, part in value.items()}
    if isinstance(value, list):
        return [_given(part, sweep) for part in value]
    if isinstance(value, ConfigFile):
        return str(value) if value in (sweep.bases or {}) else value.seen_from(sweep.root)
    return value


def _check_folder(root: Path) -> None:
    """Refuses a folder of something else.

    Raises:
        InputError: it holds files, and no sweep.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file; take another --name")
    known = (SWEEP_FILE, "study.db")
    if root.is_dir() and any(root.iterdir()) and not any((root / name).exists() for name in known):
        raise InputError(f"{root}: holds files of something else; take another --name, or another --folder")
