"""What is known of a trial, read from the storage: the input of every table and figure."""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["waiting", "running", "complete", "pruned", "failed"]
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Objective:
    """A number to optimise.

    Args:
        metric: name that a run logs it under, such as ``val/ssms``.
        maximize: whether more is better.
    """

    metric: str
    maximize: bool = True

    @property
    def direction(self) -> Direction:
        """Optuna's word."""
        return "maximize" if self.maximize else "minimize"

    @property
    def better(self) -> str:
        """Says which way is better."""
        return f"{'more' if self.maximize else 'less'} is better"


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Args:
        number: from 0, in the order of the queue; names the trial's folder.
        state: ``failed`` trials that were queued again are followed by another record with the same point.
        point: value of each parameter that is active; of choices that are no plain values, their label.
        metrics: value of each logged metric, baselines included, by repeat, such as ``{"seed_0": {"val/ssms": 3.5}}``;
            repeats that are not done are not there.
        reason: why it failed; None otherwise.
        seconds: that its runs took, all repeats together.
        folder: of its runs, one sub-folder a repeat.
        follows: number of the failed trial whose place it takes; None: it is the first of its place.
    """

    number: int
    state: State
    point: dict[str, Any]
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    reason: str | None = None
    seconds: float | None = None
    folder: str = ""
    follows: int | None = None

    def values(self, metric: str) -> dict[str, float]:
        """Finds a metric by repeat."""
        return {repeat: numbers[metric] for repeat, numbers in self.metrics.items() if metric in numbers}

    def finite_values(self, metric: str) -> dict[str, float]:
        """Finds a metric by repeat, without NaN and infinity: a repeat that diverged has no value."""
        return {repeat: value for repeat, value in self.values(metric).items() if math.isfinite(value)}

    def mean(self, metric: str) -> float | None:
        """Averages a metric over the repeats; None where there is none."""
        values = list(self.values(metric).values())
        return statistics.fmean(values) if values else None
