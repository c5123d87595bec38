"""The tables of a sweep: csv for machines, Markdown for readers, and one for the terminal."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ss2a.files import write_whole
from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.sweeps.reporting.importance import Importances
from lightning_ss2a.sweeps.reporting.ranking import Ranked, pareto_front, rank
from lightning_ss2a.sweeps.text import setting_text, short_names
from lightning_ss2a.tables import MISSING, column_digits, csv_text, markdown_table, spread, with_spread

if TYPE_CHECKING:
    from rich.table import Table


def write_report(
    folder: Path,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    parameters: Iterable[str],
    importances: Sequence[Importances] = (),
) -> None:
    """Writes ``trials.csv``, ``runs.csv`` and ``trials.md``, each replaced as a whole.

    Args:
        folder: of the study.
        records: all trials.
        objectives: one or several.
        parameters: names of the swept parameters, in the order of the columns.
        importances: what ``importance.find_importances`` found, if it was asked.
    """
    names = list(parameters)
    write_whole(folder / "trials.csv", csv_text(*_trial_rows(records, objectives, names)))
    write_whole(folder / "runs.csv", csv_text(*_run_rows(records, names)))
    write_whole(folder / "trials.md", _page(records, objectives, names, importances))


def trials_table(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    parameters: Iterable[str],
    limit: int = 20,
) -> "Table":
    """Shows the best complete trials on a terminal; the caption counts what is not shown.

    Args:
        records: all trials.
        objectives: one or several.
        parameters: names of the swept parameters; those of one value are left out.
        limit: greatest number of rows.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    header, rows = _best_rows(records, objectives, list(parameters))
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, caption=_left_over(records, len(rows), limit), caption_justify="left"
    )
    # Text, not str: a choice may hold brackets, which would be read as markup.
    for title in header[:-1]:
        table.add_column(Text(title), justify="right", no_wrap=True)
    table.add_column(Text(header[-1]), overflow="fold")
    for row in rows[:limit]:
        table.add_row(*map(Text, row))
    return table


def _left_over(records: Sequence[TrialRecord], complete: int, limit: int) -> str | None:
    counts = Counter(record.state for record in records if record.state != "complete")
    notes = [f"{complete - limit} more complete in trials.csv"] if complete > limit else []
    return ", ".join([*notes, *(f"{count} {state}" for state, count in counts.items())]) or None


def importance_lines(importances: Sequence[Importances]) -> list[str]:
    """Writes one sentence per objective: ``val/ssms: lr 62 %, dropout 38 % (of 24 trials)``."""
    lines = []
    for found in importances:
        names = short_names([*found.shares, *found.left_out])
        if found.reason is not None:
            lines.append(f"{found.metric}: none, {found.reason}")
            continue
        shares = ", ".join(f"{names[name]} {100 * share:.0f} %" for name, share in found.shares.items())
        rest = f"; one value or not in every trial: {', '.join(names[n] for n in found.left_out)}"
        lines.append(f"{found.metric}: {shares} (of {found.trials} trials{rest if found.left_out else ''})")
    return lines


# -------------------------------------------------------------------- csv


def _order(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> tuple[list[TrialRecord], list[dict[int, Ranked]], set[int]]:
    """Sorts trials best first and those that have no place after them; places by number, per objective; the front."""
    places = [{item.record.number: item for item in rank(records, objective)} for objective in objectives]
    front = [record.number for record in pareto_front(records, objectives)] if len(objectives) > 1 else []
    order = {number: position for position, number in enumerate(dict.fromkeys([*front, *places[0]]))}
    ordered = sorted(records, key=lambda record: (order.get(record.number, math.inf), record.number))
    return ordered, places, set(front)


def _trial_rows(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], names: list[str]
) -> tuple[list[str], list[list[Any]]]:
    ordered, places, front = _order(records, objectives)
    several = len(objectives) > 1
    header = ["number", "state", "repeats"]
    for objective in objectives:
        parts = ["", " spread", " behind best", " behind best spread", " within spread of best"]
        header += [f"{objective.metric}{part}" for part in parts]
    header += (["on front"] if several else []) + [*names, "seconds", "folder", "reason"]
    rows = []
    for record in ordered:
        row: list[Any] = [record.number, record.state, len(record.metrics)]
        for objective, place in zip(objectives, places, strict=True):
            values = list(record.finite_values(objective.metric).values())
            row += [record.mean(objective.metric), spread(values)]
            ranked = place.get(record.number)
            row += [ranked.behind, ranked.behind_spread, ranked.tied] if ranked else [None] * 3
        row += [record.number in front] if several else []
        row += [*(_cell(record, name) for name in names), record.seconds, record.folder, record.reason]
        rows.append(row)
    return header, rows


def _run_rows(records: Sequence[TrialRecord], names: list[str]) -> tuple[list[str], list[list[Any]]]:
    metrics = sorted({name for record in records for numbers in record.metrics.values() for name in numbers})
    rows = [
        [record.number, repeat, record.state, *(_cell(record, n) for n in names), *(numbers.get(m) for m in metrics)]
        for record in sorted(records, key=lambda record: record.number)
        for repeat, numbers in record.metrics.items()
    ]
    return ["number", "repeat", "state", *names, *metrics], rows


def _cell(record: TrialRecord, name: str) -> Any:
    # Inactive is an empty cell; a choice of null is a value, and says so.
    value = record.point.get(name, MISSING)
    return "null" if value is None else value


# -------------------------------------------------------------------- in words


def _best_rows(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], names: list[str]
) -> tuple[list[str], list[list[str]]]:
    """Lists complete trials: what both Markdown and the terminal show."""
    ordered, places, front = _order(records, objectives)
    several = len(objectives) > 1
    header = ["trial", *(["front"] if several else []), *(objective.metric for objective in objectives)]
    header += ["setting"] if several else ["behind best", "setting"]
    digits = [column_digits(item.spread for item in place.values()) for place in places]
    behind_digits = column_digits(item.behind_spread for item in places[0].values())
    settings = _settings(records, names)
    rows: list[list[str]] = []
    for record in ordered:
        ranked = [place.get(record.number) for place in places]
        if not any(ranked):
            continue
        row = [str(record.number), *(["yes" if record.number in front else MISSING] if several else [])]
        row += [with_spread(r.value, r.spread, d) if r else MISSING for r, d in zip(ranked, digits, strict=True)]
        if ranked[0] and not several:
            row.append(_behind(ranked[0], behind_digits) if rows else "best")
        rows.append([*row, settings[record.number]])
    return header, rows


def _behind(ranked: Ranked, digits: int | None) -> str:
    return with_spread(ranked.behind, ranked.behind_spread, digits) + (", tied" if ranked.tied else "")


def _settings(records: Sequence[TrialRecord], names: list[str]) -> dict[int, str]:
    """Writes the point of each trial by its number, without the parameters that never vary."""
    varied = [n for n in names if len({repr(record.point.get(n, MISSING)) for record in records}) > 1]
    short = short_names(names)
    return {
        record.number: ", ".join(f"{short[n]} {setting_text(record.point[n])}" for n in varied if n in record.point)
        for record in records
    }


def _page(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    names: list[str],
    importances: Sequence[Importances],
) -> str:
    header, rows = _best_rows(records, objectives, names)
    wanted = " and ".join(f"{o.metric} ({o.better})" for o in objectives)
    blocks = [f"# Trials by {wanted}", markdown_table(header, rows) if rows else "No trial is complete."]
    if rows:
        blocks.append(_legend(objectives))
    if importances:
        blocks.append("## Importances")
        blocks.append("Share of the differences between trials that a parameter explains (fANOVA).")
        blocks.append("\n".join(f"- {line}" for line in importance_lines(importances)))
    ranked, settings = {row[0] for row in rows}, _settings(records, names)
    rest = [r for r in sorted(records, key=lambda r: r.number) if str(r.number) not in ranked]
    if rest:
        table = [[str(r.number), r.state, r.reason or MISSING, settings[r.number]] for r in rest]
        blocks += ["## Not ranked", markdown_table(["trial", "state", "reason", "setting"], table)]
    return "\n\n".join(blocks) + "\n"


def _legend(objectives: Sequence[Objective]) -> str:
    spreads = "± is the standard deviation over the repeats."
    if len(objectives) > 1:
        return f"{spreads} On the front are trials that no other beats in all objectives; they come first."
    return (
        f"{spreads} *Behind best* is the mean difference to the best trial over the repeats that both have, ± its"
        " standard deviation; *tied* where it is no more than that. Trials that lack repeats come last."
    )
