"""The first trials' configurations, without a study."""

import shlex

from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.running.messages import ConfigTask
from lightning_ss2a.sweeps.running.optuna_classes import build_pruner, build_sampler
from lightning_ss2a.sweeps.running.pool import Pool
from lightning_ss2a.sweeps.running.queue import TrialQueue
from lightning_ss2a.sweeps.running.storage import import_optuna
from lightning_ss2a.sweeps.running.trial_runs import Runs


def first_configurations(sweep: Sweep, trials: int, pool: Pool) -> str:
    """Writes YAML documents, one for each of the first trials (its first run), with the command that makes it.

    Where steps of ``prepare`` are still to be done there is the command alone: the data's manifest decides widths.

    Args:
        sweep: what the file says.
        trials: how many.
        pool: a worker, ended here.

    Raises:
        InputError: the file is wrong.
    """
    runs = Runs(sweep)
    storage = import_optuna().storages.InMemoryStorage()
    sampler, pruner = build_sampler(sweep), build_pruner(sweep.pruner)
    queue = TrialQueue(storage, sweep.name, sweep.space, sweep.objectives, sampler, pruner)
    queue.open({})
    queue.fill(runs.points()[:trials])
    repeat = runs.repeats[0]
    steps = [step.name for step in runs.steps(repeat) if not step.is_done]
    documents = []
    try:
        while (claim := queue.claim()) is not None:
            options = runs.options(claim.point, repeat)
            lines = [f"# trial {claim.number}, run {repeat.label}, one of {len(runs.repeats)}"]
            lines.append(f"# {shlex.join(['lightning', sweep.command, *options])}")
            if steps:
                lines.append(f"# after these steps: {', '.join(steps)}")
            else:
                lines.append(pool.call(ConfigTask((sweep.command, *options))).value)
            documents.append("\n".join(lines))
    finally:
        pool.stop()
    return "\n---\n".join(documents)
