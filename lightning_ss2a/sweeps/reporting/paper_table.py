"""A sweep's results laid out as a paper prints them: rows of settings, columns of metrics, mean and spread."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.reporting.ranking import finite_values
from lightning_ss2a.sweeps.reporting.text import MISSING, column_digits, mean_and_spread, replace_file, setting_text
from lightning_ss2a.sweeps.reporting.trial_tables import csv_text, markdown_table
from lightning_ss2a.sweeps.running.records import TrialRecord, spread
from lightning_ss2a.sweeps.space import SearchSpace, label, nearest

INACTIVE = MISSING
"""Key of the label of a parameter that is not active in a row."""

ByRepeat = dict[str, float]
"""A number by repeat."""


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
        floors: floors that get a row of their own, and its label: of ``ridge`` the row has ``METRIC_floor/ridge``.
        digits: after the decimal point; None: two significant ones of the spread.
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
    floors: dict[str, str] = field(default_factory=dict)
    digits: int | None = None
    notes: str | None = None


def check_table(table: Table, space: SearchSpace) -> None:
    """Refuse a layout that does not fit the parameters of a sweep.

    Raises:
        InputError: an unknown parameter, value or metric.
    """
    across = [] if table.columns is None else [table.columns]
    named = {"rows": table.rows, "columns": across, "headings": table.headings, "labels": table.labels}
    for option, names in named.items():
        for name in names:
            if name not in space.names:
                raise InputError(f"table.{option}: {name} is no parameter of this sweep; {nearest(name, space.names)}")
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
                known = nearest(name, list(table.metrics))
                raise InputError(f"table.{option}: {name} is no metric of the table; {known}")


def write_table(folder: Path, table: Table, records: Sequence[TrialRecord], space: SearchSpace) -> list[Path]:
    """Write ``table.md`` and ``table.csv``, each replaced as a whole.

    Args:
        folder: of the study.
        table: layout.
        records: all trials; complete ones are shown, those that are not leave their cells empty.
        space: of the sweep, for the order of the rows.

    Returns:
        The files.
    """
    results = _Results(table, records, space)
    return [
        replace_file(folder / "table.md", _page(results)),
        replace_file(folder / "table.csv", csv_text(*_csv_rows(results))),
    ]


@dataclass(frozen=True)
class _Quantity:
    """Something measured of each cell: a metric, its change from the base, or its distance to another metric."""

    metric: str
    heading: str
    kind: str = "value"


Place = tuple[Any, ...]
"""Values of the parameters in rows and columns, ``INACTIVE`` where one is not."""


class _Results:
    """Numbers of a table's cells."""

    def __init__(self, table: Table, records: Sequence[TrialRecord], space: SearchSpace) -> None:
        self.table = table
        self.names = [*table.rows, *([] if table.columns is None else [table.columns])]
        self.complete = [record for record in records if record.state == "complete"]
        groups: dict[Place, list[TrialRecord]] = {}
        for record in records:
            groups.setdefault(self._place(record), [])
        for record in self.complete:
            groups[self._place(record)].append(record)
        self.groups = dict(sorted(groups.items(), key=lambda item: self._order(item[0], space)))
        logged = {name for record in self.complete for numbers in record.metrics.values() for name in numbers}
        self.metrics = {name: heading for name, heading in table.metrics.items() if name in logged}

    @property
    def empty(self) -> int:
        """Number of cells without a complete trial."""
        return sum(not trials for trials in self.groups.values())

    def quantities(self) -> list[_Quantity]:
        """What the columns hold: all metrics, then comparisons."""
        found = [_Quantity(name, heading) for name, heading in self.metrics.items()]
        for name, heading in self.metrics.items():
            if self.table.base is not None and name in (self.table.changes or self.metrics):
                found.append(_Quantity(name, f"{heading}, change from {self._base_label()}", "change"))
            if name in self.table.against:
                other = self.table.against[name]
                other = self.table.metrics.get(other, other)
                found.append(_Quantity(name, f"{heading}, less {other}", "against"))
        return found

    def numbers(self, place: Place, quantity: _Quantity) -> ByRepeat:
        """A quantity of a cell by repeat."""
        own = self._values(self.groups.get(place, []), quantity.metric)
        if quantity.kind == "value":
            return own
        if quantity.kind == "against":
            other = self._values(self.groups.get(place, []), self.table.against[quantity.metric])
        else:
            base = self._base_of(place)
            other = {} if base in (None, place) else self._values(self.groups[base], quantity.metric)
        return {repeat: value - other[repeat] for repeat, value in own.items() if repeat in other}

    def floor(self, name: str, metric: str) -> ByRepeat:
        """A floor by repeat."""
        return self._values(self.complete, f"{metric}_floor/{name}")

    def labels(self, place: Place) -> list[str]:
        """What is printed for the values of a place."""
        return [self.label(name, value) for name, value in zip(self.names, place, strict=False)]

    def label(self, name: str, value: Any) -> str:
        """What is printed for a value."""
        text = INACTIVE if value is INACTIVE else setting_text(value)
        return self.table.labels.get(name, {}).get(text, text)

    def heading(self, name: str) -> str:
        """What is printed for a parameter."""
        return self.table.headings.get(name, name)

    def _place(self, record: TrialRecord) -> Place:
        return tuple(record.point.get(name, INACTIVE) for name in self.names)

    def _order(self, place: Place, space: SearchSpace) -> list[tuple[int, float]]:
        return [_position(space, name, value) for name, value in zip(self.names, place, strict=True)]

    def _base_label(self) -> str:
        base = {name: self.label(name, label(value)) for name, value in self.table.base.items()}
        if len(base) == 1:
            return next(iter(base.values()))
        return ", ".join(f"{self.heading(name)} {text}" for name, text in base.items())

    def _base_of(self, place: Place) -> Place | None:
        """The place that a place is compared with: it has the base's values and, where it has others, its own."""
        base = {name: label(value) for name, value in self.table.base.items()}
        wanted = dict(zip(self.names, place, strict=True)) | base
        for other in self.groups:
            values = dict(zip(self.names, other, strict=True))
            fits = all(value in (INACTIVE, wanted[name]) for name, value in values.items())
            if fits and all(values[name] == value for name, value in base.items()):
                return other
        return None

    @staticmethod
    def _values(trials: Sequence[TrialRecord], metric: str) -> ByRepeat:
        found: dict[str, list[float]] = {}
        for trial in trials:
            for repeat, value in finite_values(trial, metric).items():
                found.setdefault(repeat, []).append(value)
        return {repeat: statistics.fmean(values) for repeat, values in found.items()}


def _position(space: SearchSpace, name: str, value: Any) -> tuple[int, float]:
    """Order of a parameter's values: inactive, then as the sweep file lists them, or by size."""
    if value is INACTIVE:
        return (0, 0.0)
    options = space.parameters[name].options
    return (1, float(value if options is None else list(options).index(value)))


# -------------------------------------------------------------------- Markdown


def _page(results: _Results) -> str:
    table = results.table
    blocks = [f"# {table.title}"]
    if not results.complete:
        blocks.append("No trial is complete.")
    elif table.columns is None:
        blocks.append(_plain_table(results))
    else:
        blocks += [block for quantity in results.quantities() for block in _grid(results, quantity)]
    blocks += [] if table.notes is None else [table.notes.strip()]
    blocks.append(_legend(results))
    return "\n\n".join(blocks) + "\n"


def _plain_table(results: _Results) -> str:
    table, quantities = results.table, results.quantities()
    samples = [[results.numbers(place, quantity) for quantity in quantities] for place in results.groups]
    names = [results.labels(place) for place in results.groups]
    for floor, text in table.floors.items():
        rows = [results.floor(floor, q.metric) if q.kind == "value" else {} for q in quantities]
        if any(rows):
            samples.append(rows)
            names.append([text, *[MISSING] * (len(table.rows) - 1)])
    header = [*map(results.heading, table.rows), *(quantity.heading for quantity in quantities)]
    cells = list(zip(*(_cells(column, table.digits) for column in zip(*samples, strict=True)), strict=True))
    return markdown_table(header, [[*name, *row] for name, row in zip(names, cells, strict=True)])


def _grid(results: _Results, quantity: _Quantity) -> Iterator[str]:
    """Heading and table of one quantity: rows down, the parameter of ``columns`` across."""
    table = results.table
    across = list(dict.fromkeys(place[-1] for place in results.groups))
    down = list(dict.fromkeys(place[:-1] for place in results.groups))
    samples = [results.numbers((*row, column), quantity) for row in down for column in across]
    if not any(samples):
        return
    cells = iter(_cells(samples, table.digits))
    heading = results.heading(table.columns)
    header = [*map(results.heading, table.rows), *(f"{heading} {results.label(table.columns, x)}" for x in across)]
    yield f"**{quantity.heading}**"
    yield markdown_table(header, [[*results.labels(row), *(next(cells) for _ in across)] for row in down])


def _cells(samples: Sequence[ByRepeat], digits: int | None) -> list[str]:
    """One column's cells, all with as many digits."""
    values = [list(sample.values()) for sample in samples]
    if digits is None:
        digits = column_digits(spread(sample) for sample in values)
    return [mean_and_spread(statistics.fmean(v) if v else None, spread(v), digits) for v in values]


def _legend(results: _Results) -> str:
    repeats = max((len(record.metrics) for record in results.complete), default=0)
    lines = [f"Mean ± standard deviation over {repeats} run{'s' * (repeats != 1)}"]
    if any(quantity.kind != "value" for quantity in results.quantities()):
        lines.append("changes and differences are paired by run")
    if results.empty:
        lines.append(f"empty: not complete ({results.empty} of {len(results.groups)})")
    return "; ".join(lines) + "."


# -------------------------------------------------------------------- csv


def _csv_rows(results: _Results) -> tuple[list[str], list[list[Any]]]:
    """A row for each cell and each floor: values of the parameters, then mean, spread and n of each quantity."""
    quantities = results.quantities()
    suffix = {"value": MISSING, "change": " change", "against": " less "}
    header = [*results.names, "floor"]
    for q in quantities:
        name = f"{q.metric}{suffix[q.kind]}{results.table.against[q.metric] if q.kind == 'against' else MISSING}"
        header += [f"{name} mean", f"{name} spread", f"{name} n"]
    rows = []
    for place in results.groups:
        cells = ["null" if value is None else value for value in place]
        rows.append([*cells, MISSING, *_plain_numbers([results.numbers(place, q) for q in quantities])])
    for floor in results.table.floors:
        samples = [results.floor(floor, q.metric) if q.kind == "value" else {} for q in quantities]
        if any(samples):
            rows.append([*[MISSING] * len(results.names), floor, *_plain_numbers(samples)])
    return header, rows


def _plain_numbers(samples: Sequence[Mapping[str, float]]) -> list[Any]:
    found: list[Any] = []
    for sample in samples:
        values = list(sample.values())
        deviation = spread(values)
        mean = statistics.fmean(values) if values else MISSING
        found += [mean, MISSING if math.isnan(deviation) else deviation, len(values)]
    return found
