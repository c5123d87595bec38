"""A sweep's results laid out as a paper prints them: rows of settings, columns of metrics, mean and spread."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_ss2a.files import write_whole
from lightning_ss2a.metric_names import baseline_metric
from lightning_ss2a.sweeps.records import TrialRecord
from lightning_ss2a.sweeps.space import SearchSpace, label
from lightning_ss2a.sweeps.table_layout import Table
from lightning_ss2a.sweeps.text import setting_text
from lightning_ss2a.tables import MISSING, column_digits, csv_text, markdown_table, mean_and_spread, spread

INACTIVE = MISSING
"""Value, and key of the label, of a parameter that is not active in a row."""

Place = tuple[Any, ...]
"""Values of the parameters in rows and columns."""

Sample = dict[str, float]
"""A number by repeat."""


def write_table(folder: Path, table: Table, records: Sequence[TrialRecord], space: SearchSpace) -> list[Path]:
    """Writes ``table.md`` and ``table.csv``, each replaced as a whole.

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
        write_whole(folder / "table.md", _page(results)),
        write_whole(folder / "table.csv", csv_text(*_csv_rows(results))),
    ]


@dataclass(frozen=True)
class _Quantity:
    """Something measured of each cell: a metric, its change from the base, or its distance to another metric.

    Args:
        metric: that a run logs.
        heading: in the page.
        name: in the csv.
        less: what is taken away: another metric, or ``BASE``: the same one in the cell that this one is compared with.
    """

    metric: str
    heading: str
    name: str
    less: str | None = None


BASE = ""


class _Results:
    """Numbers of a table's cells."""

    def __init__(self, table: Table, records: Sequence[TrialRecord], space: SearchSpace) -> None:
        self.table = table
        self.names = [*table.rows, *([] if table.columns is None else [table.columns])]
        self.base = {name: label(value) for name, value in (table.base or {}).items()}
        self.complete = [record for record in records if record.state == "complete"]
        groups: dict[Place, list[TrialRecord]] = {self._place(record): [] for record in records}
        for record in self.complete:
            groups[self._place(record)].append(record)
        self.groups = {place: groups[place] for place in sorted(groups, key=lambda place: self._order(place, space))}
        logged = {name for record in self.complete for numbers in record.metrics.values() for name in numbers}
        self.quantities = list(self._quantities({n: h for n, h in table.metrics.items() if n in logged}))

    def sample(self, place: Place, quantity: _Quantity) -> Sample:
        """Finds a quantity of a cell by repeat."""
        own = _means(self.groups.get(place, []), quantity.metric)
        if quantity.less is None:
            return own
        if quantity.less == BASE:
            base = self._base_of(place)
            other = {} if base in (None, place) else _means(self.groups[base], quantity.metric)
        else:
            other = _means(self.groups.get(place, []), quantity.less)
        return {repeat: value - other[repeat] for repeat, value in own.items() if repeat in other}

    def baselines(self) -> Iterator[tuple[str, list[Sample]]]:
        """Finds the baselines that were logged, each with its sample of every quantity."""
        for name in self.table.baselines:
            samples = [
                _means(self.complete, baseline_metric(q.metric, name)) if q.less is None else {}
                for q in self.quantities
            ]
            if any(samples):
                yield name, samples

    def labels(self, place: Place) -> list[str]:
        """Writes the values of a place."""
        return [self.label(name, value) for name, value in zip(self.names, place, strict=False)]

    def label(self, name: str, value: Any) -> str:
        """Writes a value."""
        text = INACTIVE if value is INACTIVE else setting_text(value)
        return self.table.labels.get(name, {}).get(text, text)

    def heading(self, name: str) -> str:
        """Writes a parameter's name."""
        return self.table.headings.get(name, name)

    def _quantities(self, metrics: dict[str, str]) -> Iterator[_Quantity]:
        """Lists what the columns hold: all metrics, then comparisons."""
        yield from (_Quantity(name, heading, name) for name, heading in metrics.items())
        base = [(self.heading(name), self.label(name, value)) for name, value in self.base.items()]
        shown = base[0][1] if len(base) == 1 else ", ".join(f"{heading} {text}" for heading, text in base)
        for name, heading in metrics.items():
            if self.table.base is not None and name in (self.table.changes or metrics):
                yield _Quantity(name, f"{heading}, change from {shown}", f"{name} change", BASE)
            if name in self.table.against:
                other = self.table.against[name]
                own = {baseline_metric(name, baseline): label for baseline, label in self.table.baselines.items()}
                words = self.table.metrics.get(other) or own.get(other, other)
                yield _Quantity(name, f"{heading}, less {words}", f"{name} less {other}", other)

    def _place(self, record: TrialRecord) -> Place:
        return tuple(record.point.get(name, INACTIVE) for name in self.names)

    def _order(self, place: Place, space: SearchSpace) -> list[tuple[int, float]]:
        """Sorts inactive ones first, then values as the sweep file lists them, or by size."""
        order = []
        for name, value in zip(self.names, place, strict=True):
            options = space.parameters[name].options
            at = value if options is None else list(options).index(value) if value is not INACTIVE else 0
            order.append((0, 0.0) if value is INACTIVE else (1, float(at)))
        return order

    def _base_of(self, place: Place) -> Place | None:
        """Finds the place that one is compared with: it has the base's values and, where it has others, its own."""
        wanted = dict(zip(self.names, place, strict=True)) | self.base
        for other in self.groups:
            values = dict(zip(self.names, other, strict=True))
            fits = all(value in (INACTIVE, wanted[name]) for name, value in values.items())
            if fits and all(values[name] == value for name, value in self.base.items()):
                return other
        return None


def _means(trials: Sequence[TrialRecord], metric: str) -> Sample:
    """Averages a metric over trials, repeat by repeat."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        for repeat, value in trial.finite_values(metric).items():
            found.setdefault(repeat, []).append(value)
    return {repeat: statistics.fmean(values) for repeat, values in found.items()}


# -------------------------------------------------------------------- Markdown


def _page(results: _Results) -> str:
    table = results.table
    blocks = [f"# {table.title}"]
    if not results.complete:
        blocks.append("No trial is complete.")
    elif table.columns is None:
        blocks.append(_plain_table(results))
    else:
        blocks += [block for q in results.quantities for block in _grid(results, q, table.columns)]
    blocks += [] if table.notes is None else [table.notes.strip()]
    blocks.append(_legend(results))
    return "\n\n".join(blocks) + "\n"


def _plain_table(results: _Results) -> str:
    table = results.table
    rows = [(results.labels(place), [results.sample(place, q) for q in results.quantities]) for place in results.groups]
    blank = [MISSING] * (len(table.rows) - 1)
    rows += [([table.baselines[name], *blank], samples) for name, samples in results.baselines()]
    columns = [_cells(column) for column in zip(*(samples for _, samples in rows), strict=True)]
    header = [*map(results.heading, table.rows), *(q.heading for q in results.quantities)]
    return markdown_table(header, [[*names, *(column[at] for column in columns)] for at, (names, _) in enumerate(rows)])


def _grid(results: _Results, quantity: _Quantity, parameter: str) -> Iterator[str]:
    """Writes heading and table of one quantity: rows down, the values of a parameter across."""
    across = list(dict.fromkeys(place[-1] for place in results.groups))
    down = list(dict.fromkeys(place[:-1] for place in results.groups))
    samples = [results.sample((*row, column), quantity) for row in down for column in across]
    if not any(samples):
        return
    cells = iter(_cells(samples))
    columns = [f"{results.heading(parameter)} {results.label(parameter, value)}" for value in across]
    yield f"**{quantity.heading}**"
    yield markdown_table(
        [*map(results.heading, results.table.rows), *columns],
        [[*results.labels(row), *(next(cells) for _ in across)] for row in down],
    )


def _cells(samples: Sequence[Sample]) -> list[str]:
    """Writes one column's cells, all with as many digits."""
    values = [list(sample.values()) for sample in samples]
    digits = column_digits(map(spread, values))
    return [mean_and_spread(each, digits) for each in values]


def _legend(results: _Results) -> str:
    repeats = max((len(record.metrics) for record in results.complete), default=0)
    lines = [f"Mean ± standard deviation over {repeats} run{'s' * (repeats != 1)}"]
    if any(quantity.less is not None for quantity in results.quantities):
        lines.append("changes and differences are paired by run")
    empty = sum(not trials for trials in results.groups.values())
    if empty:
        lines.append(f"empty: not complete ({empty} of {len(results.groups)})")
    return "; ".join(lines) + "."


# -------------------------------------------------------------------- csv


def _csv_rows(results: _Results) -> tuple[list[str], list[list[Any]]]:
    """Makes a row per cell and baseline: values of the parameters, then mean, spread and n of each quantity."""
    parts = [f"{quantity.name} {part}" for quantity in results.quantities for part in ("mean", "spread", "n")]
    rows = [
        ["null" if value is None else value for value in (*place, MISSING)]
        + _numbers([results.sample(place, quantity) for quantity in results.quantities])
        for place in results.groups
    ]
    blank = [MISSING] * len(results.names)
    rows += [[*blank, name, *_numbers(samples)] for name, samples in results.baselines()]
    return [*results.names, "baseline", *parts], rows


def _numbers(samples: Sequence[Sample]) -> list[Any]:
    values = [list(sample.values()) for sample in samples]
    return [part for v in values for part in (statistics.fmean(v) if v else None, spread(v), len(v))]
