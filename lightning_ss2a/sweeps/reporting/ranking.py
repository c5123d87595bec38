"""Which trials are best, and which differences lie within the spread over the repeats."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.tables import spread


@dataclass(frozen=True)
class Ranked:
    """A trial in its place.

    Args:
        record: the trial.
        value: mean of the metric over the repeats that have a finite value.
        spread: standard deviation over those repeats; NaN of fewer than two.
        behind: mean over the repeats that this trial and the best both have of how much worse this one is, positive
            for worse whatever the direction; 0 for the best itself, NaN where no repeat is common.
        behind_spread: standard deviation of those paired differences; NaN of fewer than two.
        tied: whether ``behind`` is no more than ``behind_spread``, that is within the spread of the best; None where
            fewer than two repeats are common, so that nobody can tell.
    """

    record: TrialRecord
    value: float
    spread: float
    behind: float
    behind_spread: float
    tied: bool | None


def rank(records: Iterable[TrialRecord], objective: Objective) -> list[Ranked]:
    """Ranks complete trials, best mean first, equal means by number.

    A trial that lacks repeats must not win by missing the hard ones. So those with as many finite values of the metric
    as the best supplied trial has come first, and those with fewer after all of them, each group sorted by its mean.
    A complete trial without any finite value has no place, and is left out.
    """
    records = list(records)
    values = {record.number: record.finite_values(objective.metric) for record in records}
    placed = [record for record in records if record.state == "complete" and values[record.number]]
    sign = -1 if objective.maximize else 1
    placed.sort(
        key=lambda record: (
            -len(values[record.number]),
            sign * statistics.fmean(values[record.number].values()),
            record.number,
        )
    )
    return [_against(placed[0], record, objective) for record in placed]


def pareto_front(records: Iterable[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """Finds the complete trials that no other dominates, best in the first objective first, equal ones by number.

    A trial dominates another where its means are nowhere worse and somewhere better; two with equal means both stay.
    The same rule as in ``rank`` holds: only trials with all repeats of every objective compete, if there are any.
    """
    costs = _costs(records, objectives)
    front = [(cost, record) for cost, record in costs if not any(_dominates(other, cost) for other, _ in costs)]
    return [record for _, record in sorted(front, key=lambda item: (item[0][0], item[1].number))]


def _against(best: TrialRecord, record: TrialRecord, objective: Objective) -> Ranked:
    reference, values = best.finite_values(objective.metric), record.finite_values(objective.metric)
    sign = 1 if objective.maximize else -1
    # Paired by repeat: what a seed or a fold adds to both trials says nothing about their difference.
    behind = [sign * (reference[repeat] - value) for repeat, value in values.items() if repeat in reference]
    mean = statistics.fmean(behind) if behind else math.nan
    deviation = spread(behind)
    return Ranked(
        record=record,
        value=statistics.fmean(values.values()),
        spread=spread(list(values.values())),
        behind=mean,
        behind_spread=deviation,
        tied=mean <= deviation if len(behind) > 1 else None,
    )


def _costs(
    records: Iterable[TrialRecord], objectives: Sequence[Objective]
) -> list[tuple[tuple[float, ...], TrialRecord]]:
    """Finds means with the sign that makes less better, of the trials that compete."""
    counted = []
    for record in records:
        values = [record.finite_values(objective.metric) for objective in objectives]
        if record.state == "complete" and all(values):
            counted.append((min(map(len, values)), values, record))
    most = max((count for count, _, _ in counted), default=0)
    return [
        (
            tuple(
                (-1 if objective.maximize else 1) * statistics.fmean(numbers.values())
                for objective, numbers in zip(objectives, values, strict=True)
            ),
            record,
        )
        for count, values, record in counted
        if count == most
    ]


def _dominates(x: tuple[float, ...], y: tuple[float, ...]) -> bool:
    return x != y and all(a <= b for a, b in zip(x, y, strict=True))
