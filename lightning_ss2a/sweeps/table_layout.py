"""How a sweep's results are laid out as a paper prints them."""

from dataclasses import dataclass, field
from typing import Any

from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.sweeps.space import SearchSpace


@dataclass(frozen=True)
class Table:
    """Layout of a table.

    Args:
        title: above the table.
        rows: parameters whose values make the rows; the others are averaged over, repeat by repeat.
        metrics: logged metrics that make the columns, and their headings. One that no run logs has no column.
        columns: parameter whose values go across; then each metric has a table of its own.
        headings: what to print instead of a parameter's name.
        labels: what to print instead of a value, by parameter; of the value ``""`` where the parameter is not active.
        base: values of parameters. Each cell is also compared, paired by repeat, with the one that has these values and
            else its own.
        changes: metrics that are compared with the base; None: all.
        against: metrics to compare with another metric of the same run, by name.
        baselines: those that get a row of their own, and its label: of ``ridge`` the row has ``METRIC_baseline/ridge``.
        notes: below the table.
    """

    title: str
    rows: list[str]
    metrics: dict[str, str]
    columns: str | None = None
    headings: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    base: dict[str, Any] | None = None
    changes: list[str] | None = None
    against: dict[str, str] = field(default_factory=dict)
    baselines: dict[str, str] = field(default_factory=dict)
    notes: str | None = None


def check_table(table: Table, space: SearchSpace) -> None:
    """Refuses a layout that does not fit the parameters of a sweep.

    Raises:
        InputError: an unknown parameter, value or metric.
    """
    across = [] if table.columns is None else [table.columns]
    named = {"rows": table.rows, "columns": across, "headings": table.headings, "labels": table.labels}
    for option, names in named.items():
        for name in names:
            if name not in space.names:
                advice = did_you_mean(name, space.names)
                raise InputError(f"table.{option}: {name} is no parameter of this sweep; {advice}")
    if not table.rows or not table.metrics:
        raise InputError("table: needs at least one parameter in rows, and one metric")
    shown = [*table.rows, *across]
    if len(set(shown)) < len(shown):
        raise InputError(f"table: a parameter is named twice in rows and columns: {', '.join(shown)}")
    space.checked_point(table.base or {}, "table.base")
    for name in table.base or {}:
        if name not in shown:
            raise InputError(f"table.base: {name} is in neither rows nor columns")
    for option, names in {"changes": table.changes or [], "against": table.against}.items():
        for name in names:
            if name not in table.metrics:
                advice = did_you_mean(name, table.metrics)
                raise InputError(f"table.{option}: {name} is no metric of the table; {advice}")
