"""Sweeps whose workers are a function: what the coordinator does with their answers, in milliseconds."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.running.coordinator import Coordinator
from lightning_ss2a.sweeps.running.messages import (
    Alive,
    Answer,
    CheckTask,
    ConfigTask,
    Done,
    Failed,
    Progress,
    RunTask,
    Task,
)
from lightning_ss2a.sweeps.running.storage import import_optuna
from lightning_ss2a.sweeps.running.study import open_study
from lightning_ss2a.sweeps.running.trial_runs import Runs
from lightning_ss2a.sweeps.space import Parameter

Work = Callable[[Task], list[Answer]]
"""Answers to a task: validations, then its end."""


class FakePool:
    """Workers that answer at once, as ``work`` says."""

    def __init__(self, work: Work, workers: int = 1) -> None:
        self.work, self.numbers = work, range(workers)
        self.tasks: list[Task] = []
        self.answers: dict[int, list[Answer]] = {}
        self.stopped: list[bool] = []
        self.ended: list[int] = []
        self.is_stopped = False

    @property
    def idle(self) -> list[int]:
        return [number for number in self.numbers if number not in self.answers]

    def give(self, number: int, task: Task) -> None:
        assert number in self.idle
        self.tasks.append(task)
        self.answers[number] = list(self.work(task))

    def reply(self, number: int, stop: bool) -> None:
        self.stopped.append(stop)
        if stop:
            self.answers[number] = [Done({}, pruned=True)]

    def wait(self, seconds: float) -> list[tuple[int, Answer]]:
        answered = []
        for number in list(self.answers):
            if not self.answers[number]:
                continue  # it hangs
            answered.append((number, self.answers[number].pop(0)))
            if not isinstance(answered[-1][1], (Progress, Alive)):
                del self.answers[number]
        return answered

    def call(self, task: Task) -> Done:
        self.tasks.append(task)
        (answer,) = self.work(task)
        if isinstance(answer, Failed):
            raise InputError(answer.reason)
        return answer

    def end(self, number: int) -> None:
        del self.answers[number]
        self.ended.append(number)

    def stop(self) -> None:
        self.answers.clear()
        self.is_stopped = True

    @property
    def runs(self) -> list[RunTask]:
        return [task for task in self.tasks if isinstance(task, RunTask)]


def option(task: RunTask, path: str) -> str:
    """Value of an option of a run."""
    (value,) = [part.split("=", 1)[1] for part in task.arguments if part.startswith(f"--{path}=")]
    return value


def learned(task: Task) -> list[Answer]:
    """Runs that reach ``10 x + seed``; everything else succeeds."""
    if isinstance(task, CheckTask):
        return [Done(["train/loss", "val/x", "val/y"])]
    if isinstance(task, ConfigTask):
        return [Done(" ".join(task.arguments))]
    if not isinstance(task, RunTask):
        return [Done()]
    value = 10 * float(option(task, "model.x")) + int(option(task, "seed_everything"))
    return [Done({"val/x": value, "val/y": -value}, seconds=1.0)]


def make_sweep(folder: Path, /, **options: Any) -> Sweep:
    """A grid of three points of ``model.x``."""
    (folder / "base.yaml").write_text("trainer: {max_epochs: 1}\n")
    plain = {
        "name": "s",
        "base": str(folder / "base.yaml"),
        "folder": str(folder / "sweeps"),
        "parameters": {"model.x": Parameter(choices=[1, 2, 3])},
        "metric": "val/x",
        "sampler": "grid",
    }
    return Sweep(**{**plain, **options})


@functools.cache
def _memory(url: str | None, folder: Path) -> Any:
    return import_optuna().storages.InMemoryStorage()


def make_coordinator(sweep: Sweep, work: Work = learned, **parts: Any) -> tuple[Coordinator, list[str]]:
    """A coordinator, and the lines that it prints; its study is in memory, where later ones of the test find it."""
    lines: list[str] = []
    runs = Runs(sweep)
    queue = open_study(runs, _memory(sweep.storage, sweep.root))
    return Coordinator(runs, queue, FakePool(work, sweep.workers), lines.append, **parts), lines
