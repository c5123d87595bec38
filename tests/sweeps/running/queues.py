"""Queues of trials for tests, and processes that share one."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_ss2a.sweeps.records import Objective
from lightning_ss2a.sweeps.running.queue import TrialQueue
from lightning_ss2a.sweeps.running.storage import import_optuna, open_storage
from lightning_ss2a.sweeps.space import Parameter, SearchSpace

optuna = import_optuna()
SPACE = SearchSpace({"x": Parameter(choices=[1, 2, 3]), "y": Parameter(low=0.0, high=1.0)})
POINTS = [{"x": x, "y": y / 4} for x in (1, 2, 3) for y in range(4)]
QUESTION = {"parameters": "x, y"}


def make_queue(storage: Any = None, **parts: Any) -> TrialQueue:
    """A queue in memory unless told otherwise; its study is still to be opened."""
    plain = {
        "name": "study",
        "space": SPACE,
        "objectives": [Objective("val/x")],
        "sampler": optuna.samplers.RandomSampler(seed=0),
        "pruner": optuna.pruners.NopPruner(),
    }
    return TrialQueue(optuna.storages.InMemoryStorage() if storage is None else storage, **{**plain, **parts})


def opened(url: str | None, folder: Path) -> TrialQueue:
    """A queue in a storage, its study made."""
    queue = make_queue(open_storage(url, folder))
    queue.open(QUESTION)
    return queue


def filled(points: list[dict[str, Any]] | None = None, **parts: Any) -> TrialQueue:
    """A queue in memory with trials in it."""
    queue = make_queue(**parts)
    queue.open(QUESTION)
    queue.fill(POINTS if points is None else points)
    return queue


def fill_and_claim_all(url: str | None, folder: Path) -> list[int]:
    """What one of several processes does; numbers of the trials that it finished."""
    queue = opened(url, folder)
    queue.fill(POINTS)
    finished = []
    while (claim := queue.claim()) is not None:
        queue.keep(claim, "seed_0", {"val/x": claim.point["y"]}, 1.0)
        queue.finish(claim, [claim.point["y"]])
        finished.append(claim.number)
    return finished


def in_processes(number: int, call: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Results of a function that several processes call at the same time."""
    pool = multiprocessing.get_context("fork").Pool(number)
    try:
        return [result.get(120) for result in [pool.apply_async(call, arguments) for _ in range(number)]]
    finally:  # not by terminate, which waits for ever for a process that swallows SIGTERM
        pool.close()
        pool.join()


def slots(queue: TrialQueue, *states: Any) -> list[int]:
    """Slots of the trials that count, in these states."""
    ended = states or (optuna.trial.TrialState.COMPLETE,)
    return sorted(trial.user_attrs["slot"] for trial in queue._trials(*ended))
