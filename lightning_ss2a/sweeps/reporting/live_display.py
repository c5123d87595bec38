"""How a sweep stands, while it runs: a table that is drawn again and again, or lines where there is no terminal."""

import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.sweeps.reporting.ranking import rank
from lightning_ss2a.sweeps.text import point_text

if TYPE_CHECKING:
    from lightning_ss2a.sweeps.running.coordinator import Coordinator

READ_SECONDS = 2.0
"""Time between two looks at the storage, at least."""

READING_SHARE = 0.05
"""Share of the time that may go into these: of ten thousand trials each takes seconds."""


class Display:
    """Shows how a sweep stands.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._next_read = 0.0
        self._records: list[TrialRecord] = []

    def line(self, text: str) -> None:
        """Prints a line, above the table if there is one."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, coordinator: "Coordinator") -> None:
        """Draws the table anew."""
        if self._live is None:
            return
        begun = time.monotonic()
        if begun > self._next_read:
            self._records, now = coordinator.queue.records(), time.monotonic()
            self._next_read = now + max(READ_SECONDS, (now - begun) / READING_SHARE)
        self._live.update(self._table(coordinator), refresh=True)

    def _table(self, coordinator: "Coordinator") -> Table:
        sweep = coordinator.sweep
        table = Table(title=f"{sweep.name}: {summary(self._records, sweep.workers)}", title_justify="left")
        for heading in ("worker", "trial", "run", "minutes", "parameters"):
            table.add_column(heading)
        total = len(coordinator.runs.repeats)
        for number, running in sorted(coordinator.running.items()):
            claim, at = running.claim, total - len(running.repeats) + 1
            minutes = f"{coordinator.elapsed(running) / 60:.1f}"
            table.add_row(str(number), str(claim.number), f"{at} of {total}", minutes, point_text(claim.point))
        table.caption = best_line(self._records, sweep.objectives[0])
        return table


def summary(records: list[TrialRecord], workers: int) -> str:
    """Counts trials: ``12 of 24 done, 2 running, 1 failed, 3.4 minutes left``.

    Args:
        records: all trials.
        workers: at work here.
    """
    counts = Counter(record.state for record in records)
    failed = sum(record.state == "failed" for record in final(records))
    done = counts["complete"] + counts["pruned"]
    parts = [f"{done} of {done + counts['running'] + counts['waiting'] + failed} done", f"{counts['running']} running"]
    parts += [f"{counts['pruned']} pruned"] * (counts["pruned"] > 0) + [f"{failed} failed"] * (failed > 0)
    seconds = [record.seconds for record in records if record.state == "complete" and record.seconds]
    if seconds and counts["waiting"] + counts["running"]:
        rounds = counts["waiting"] / workers + 0.5 * (counts["running"] > 0)
        parts.append(f"about {rounds * statistics.fmean(seconds) / 60:.1f} minutes left")
    return ", ".join(parts)


def final(records: list[TrialRecord]) -> list[TrialRecord]:
    """Leaves out the failed trials that another one follows."""
    followed = {record.follows for record in records}
    return [record for record in records if record.number not in followed]


def best_line(records: list[TrialRecord], objective: Objective) -> str:
    """Names the best trial so far."""
    ranked = rank(records, objective)
    if not ranked:
        return "no trial is done yet"
    best = ranked[0].record
    return f"best so far: trial {best.number}, {objective.metric} {ranked[0].value:.4g} ({point_text(best.point)})"
