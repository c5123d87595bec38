"""Everything that a sweep leaves for people: tables, figures, TensorBoard's HParams tab, the best configuration."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from rich.console import Console

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import FolderLock, write_whole
from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.records import TrialRecord
from lightning_ss2a.sweeps.reporting.figures import write_figures
from lightning_ss2a.sweeps.reporting.hparams_board import write_board
from lightning_ss2a.sweeps.reporting.importance import find_importances
from lightning_ss2a.sweeps.reporting.paper_table import write_table
from lightning_ss2a.sweeps.reporting.ranking import pareto_front, rank
from lightning_ss2a.sweeps.reporting.trial_tables import importance_lines, trials_table, write_report
from lightning_ss2a.sweeps.running.coordinator import Coordinator
from lightning_ss2a.sweeps.running.pool import WAIT_SECONDS

BEST = "best.yaml"
TABLE_WIDTH = 120


def write_results(coordinator: Coordinator, console: Console) -> None:
    """Writes the results into the study's folder, and prints the table of trials.

    Args:
        coordinator: of a sweep whose trials have ended, or some of them.
        console: to print on.

    Raises:
        InputError: a file cannot be written, since the disk is full, say; those that were there before stay whole.
    """
    root = coordinator.sweep.root
    with _alone(root):
        try:
            _write(coordinator, console)
        except OSError as error:
            where = error.filename2 or error.filename or root
            raise InputError(
                f"{where}: {error.strerror or error}; not all results are written: mend it, then the same command "
                "writes them"
            ) from error


def _write(coordinator: Coordinator, console: Console) -> None:
    sweep, records = coordinator.sweep, coordinator.queue.records()
    root, objectives, parameters = sweep.root, sweep.objectives, sweep.space.parameters
    best = best_trial(records, sweep)
    if best is None:
        write_report(root, records, objectives, parameters)
        console.print(f"no trial is complete; reasons: {root / 'trials.csv'}", highlight=False, soft_wrap=True)
        return
    importances = find_importances(coordinator.queue.study, objectives, parameters)
    figures = write_figures(root, records, objectives, parameters, {i.metric: i.shares for i in importances})
    write_report(root, records, objectives, parameters, importances)
    write_board(root, records, objectives, parameters, figures)
    write_whole(root / BEST, _header(best, sweep) + coordinator.best_config(best))
    console.width = max(console.width, TABLE_WIDTH)  # a log file has no width; numbers must not be cut
    console.print(trials_table(records, objectives, parameters))
    for line in importance_lines(importances):
        console.print(line, highlight=False, markup=False)
    if sweep.table is not None:
        files = write_table(root, sweep.table, records, sweep.space)
        console.print(files[0].read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)
    for line in _next_steps(root, best, sweep):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Lets sweeps of one study that end at the same moment write one after the other."""
    while True:
        try:
            lock = FolderLock(root)
            break
        except InputError:
            time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        lock.release()


def best_trial(records: list[TrialRecord], sweep: Sweep) -> TrialRecord | None:
    """Finds the best trial of one objective; of several, that of the front which is best in the first."""
    if len(sweep.objectives) > 1:
        front = pareto_front(records, sweep.objectives)
        return front[0] if front else None
    ranked = rank(records, sweep.objectives[0])
    return ranked[0].record if ranked else None


def _header(best: TrialRecord, sweep: Sweep) -> str:
    values = ", ".join(f"{o.metric} {best.mean(o.metric):.4g}" for o in sweep.objectives)
    runs = f"the mean of {len(best.metrics)} runs" if len(best.metrics) > 1 else "one run"
    return f"# Trial {best.number} of the sweep {sweep.name}: {values} ({runs}).\n"


def _next_steps(root: Path, best: TrialRecord, sweep: Sweep) -> list[str]:
    config = quote(str(root / BEST))
    return [
        f"All trials:  {root / 'trials.csv'}, every run's metrics: {root / 'runs.csv'}, pictures: {root / 'figures'}",
        f"Best:        lightning {sweep.command} -c {config}   (trial {best.number}: {root / best.folder})",
        f"Look at it:  tensorboard --logdir {quote(str(root))}",
    ]
