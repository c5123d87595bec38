"""``ss2a sweep``: many runs of ``lightning``, chosen by Optuna."""

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.reporting.live_display import Display, summary

DRY_RUN_TRIALS = 3


def sweep(dry_run: bool = False, **options: Any) -> int:
    """Vary configuration paths of lightning fit over many runs, and rank what they reach.

    Args:
        dry_run: print the first trials' configurations, write nothing and run nothing.
        options: see ``Sweep``.
    """
    from lightning_ss2a.sweeps.running.storage import import_optuna

    definition = Sweep(**options)
    import_optuna()  # or say how to install it
    if dry_run:
        _print_first_configurations(definition)
        return 0
    return _run(definition, Console())


def _print_first_configurations(definition: Sweep) -> None:
    from lightning_ss2a.sweeps.dry_run import first_configurations
    from lightning_ss2a.sweeps.running.pool import WorkerPool

    with tempfile.TemporaryDirectory() as logs:
        pool = WorkerPool(workers=1, threads=1, gpus_per_worker=0, logs=Path(logs))
        print(first_configurations(definition, DRY_RUN_TRIALS, pool))


def _run(definition: Sweep, console: Console) -> int:
    from lightning_ss2a.sweeps.running.storage import storage_errors_explained

    with storage_errors_explained(definition.storage, definition.root):
        return _run_trials(definition, console)


def _run_trials(definition: Sweep, console: Console) -> int:
    from lightning_ss2a.sweeps.reporting.results import write_results
    from lightning_ss2a.sweeps.running.coordinator import Coordinator
    from lightning_ss2a.sweeps.running.owner import threads_of_a_worker
    from lightning_ss2a.sweeps.running.pool import WorkerPool
    from lightning_ss2a.sweeps.running.study import open_study
    from lightning_ss2a.sweeps.running.trial_runs import Runs

    workers, root = definition.workers, definition.root
    display, runs = Display(console), Runs(definition)
    pool = WorkerPool(workers, threads_of_a_worker(workers), definition.gpus_per_worker, root / "workers")
    coordinator = Coordinator(runs, open_study(runs, tell=display.line), pool, display.line)
    here = f"{workers} worker{'s' * (workers > 1)} here"
    display.line(f"{root}: {summary(coordinator.queue.records(), workers)}; {here}")
    try:
        with display:
            try:
                coordinator.run(lambda: display.update(coordinator))
            except KeyboardInterrupt:
                display.line(f"stopped; the same command goes on ({summary(coordinator.queue.records(), 1)})")
                raise
        records = coordinator.queue.records()
        write_results(coordinator, console)
    finally:
        coordinator.close()
    display.line(f"{root}: {summary(records, workers)}")
    return 0 if any(record.state in ("complete", "pruned") for record in records) else 1
