"""Writes an evaluation: a table for the terminal, JSON, csv, Markdown, and LaTeX in the layout of the paper."""

import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_ss2a.evaluation.evaluate import Evaluation
from lightning_ss2a.evaluation.places import ARROWS, LATEX_ARROWS, LATEX_MARKS, MARKDOWN_MARKS, first_two
from lightning_ss2a.evaluation.scoring import Score
from lightning_ss2a.files import make_folder, write_all_whole
from lightning_ss2a.options import plain
from lightning_ss2a.tables import MISSING, csv_text, markdown_table, number_text

PACKAGES = ("lightning-ss2a", "torch", "numpy", "scipy", "soundfile", "av", "onnxruntime", "transformers", "torchaudio")
"""On which the numbers may depend."""
MOST_SHOWN = 10
"""Problems of a folder that the terminal lists; problems.csv has all."""

_LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\^{}", "∞": r"$\infty$"}
)


def write_report(folder: Path, evaluation: Evaluation, facts: Mapping[str, Any]) -> list[Path]:
    """Writes ``scores.{json,csv,md,tex}``, and csv files of bounds, differences, items, parts and problems.

    Args:
        folder: made if need be; files of these names are replaced, all or none.
        evaluation: what came out.
        facts: what one needs to do it again, see :func:`reproducibility`.

    Returns:
        The files.

    Raises:
        InputError: the folder cannot be made.
        OSError: a file cannot be written.
    """
    make_folder(folder, "the report")
    texts = {
        "scores.json": json.dumps(_document(evaluation, facts), indent=2, allow_nan=False) + "\n",
        "scores.csv": csv_text(*_score_rows(evaluation)),
        "scores.md": _page(evaluation, facts),
        "scores.tex": latex_table(evaluation),
        "items.csv": csv_text(*_item_rows(evaluation)),
        "bounds.csv": _records(evaluation.bounds, ("measure", "kind", "value")),
        "differences.csv": _records(evaluation.differences, _DIFFERENCE),
        "parts.csv": _records(evaluation.parts, ("column", "part", "method", "measure", "value", "items")),
        "problems.csv": _records(evaluation.problems, ("folder", "item", "reason")),
    }
    return write_all_whole({folder / name: text for name, text in texts.items()})


def reproducibility(evaluation: Evaluation, command: str, rule: str, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Gathers what one needs to get the same numbers again: all of it depends on what was done, not on when.

    Args:
        evaluation: what came out.
        command: line that was run.
        rule: by which sounds were read.
        protocol: options of the intervals, and others that change numbers.
    """
    return {
        "command": command,
        "sounds": rule,
        **protocol,
        "measures": {
            name: {"class": type(measure).__name__, **plain(vars(measure))}
            for name, measure in evaluation.measured.items()
        },
        "models": dict(evaluation.identities),
        "sha256": {facts.folder: facts.sha256 for facts in evaluation.facts},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def print_report(evaluation: Evaluation, console: Console) -> None:
    """Prints the scores, what the sounds are like, and what is missing."""
    table = Table(title="Scores (95 % interval)", title_justify="left", caption="* first, + second")
    table.add_column("method", overflow="fold")
    for name, measure in evaluation.measured.items():
        table.add_column(f"{name} {ARROWS[measure.higher_is_better]}", justify="right", overflow="fold")
    marks = _marks(evaluation)
    for method, scores in _by_method(evaluation).items():
        cells = [
            f"{_with_interval(score)}{ {1: ' *', 2: ' +'}.get(marks.get((method, score.measure), 0), '') }"
            for score in scores
        ]
        table.add_row(method, *cells)
    console.print(table)
    for sentence in _bound_lines(evaluation):
        console.print(sentence)
    sounds = Table(title="Sounds", title_justify="left")
    for place, name in enumerate(_FACTS):
        sounds.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in _fact_rows(evaluation):
        sounds.add_row(*row)
    console.print(sounds)
    for line in [*evaluation.notes, *_problem_lines(evaluation)]:
        console.print(line)


def latex_table(evaluation: Evaluation) -> str:
    """Writes the scores with booktabs: rows of methods, columns of metrics, the first bold, the second underlined."""
    marks = _marks(evaluation)
    heads = [f"{latex_text(name)} {LATEX_ARROWS[m.higher_is_better]}" for name, m in evaluation.measured.items()]
    lines = [
        rf"\begin{{tabular}}{{l{'c' * len(heads)}}}",
        r"\toprule",
        " & ".join(["Method", *heads]) + r" \\",
        r"\midrule",
    ]
    for method, scores in _by_method(evaluation).items():
        cells = [
            LATEX_MARKS[marks.get((method, score.measure), 0)] % score_text(score.value) or "--" for score in scores
        ]
        lines.append(" & ".join([latex_text(method), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_DIFFERENCE = ("measure", "method", "other", "value", "low", "high", "items")
_FACTS = ("sounds of", "items", "heard", "silent", "clipped", "shortest (s)", "median (s)", "longest (s)")


def _document(evaluation: Evaluation, facts: Mapping[str, Any]) -> dict[str, Any]:
    marks = _marks(evaluation)
    scores = [
        {**plain(score), "place": marks.get((score.method, score.measure)), "higher_is_better": measure}
        for score in evaluation.scores
        for measure in [evaluation.measured[score.measure].higher_is_better]
    ]
    document = {
        "scores": scores,
        "differences": [plain(difference) for difference in evaluation.differences],
        "bounds": [plain(bound) for bound in evaluation.bounds],
        "parts": [plain(part) for part in evaluation.parts],
        "sounds": [plain(each) for each in evaluation.facts],
        "problems": [plain(problem) for problem in evaluation.problems],
        "notes": list(evaluation.notes),
        "reproducibility": dict(facts),
    }
    return {name: _without_nan(part) for name, part in document.items()}


def _without_nan(value: Any) -> Any:
    """Puts null where JSON has no number."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _page(evaluation: Evaluation, facts: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    marks = _marks(evaluation)
    header = ["", *(f"{name} {ARROWS[measure.higher_is_better]}" for name, measure in evaluation.measured.items())]
    rows = [
        [method, *(MARKDOWN_MARKS[marks.get((method, s.measure), 0)] % _with_interval(s) for s in scores)]
        for method, scores in _by_method(evaluation).items()
    ]
    parts = [
        "# Scores",
        "95 % intervals over items in brackets; first place bold, second underlined.",
        markdown_table(header, rows),
    ]
    if evaluation.bounds:
        parts += ["## To compare with", "\n".join(f"- {line}" for line in _bound_lines(evaluation))]
    if evaluation.differences:
        parts += ["## Differences on the same items", markdown_table(*_difference_rows(evaluation))]
    parts += ["## Sounds", markdown_table(_FACTS, _fact_rows(evaluation))]
    notes = [*evaluation.notes, *_problem_lines(evaluation)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    parts += ["## To do it again", f"```json\n{json.dumps(_without_nan(dict(facts)), indent=2)}\n```"]
    return "\n\n".join(parts) + "\n"


def _bound_lines(evaluation: Evaluation) -> Iterator[str]:
    """Says a line for each kind of bounds, such as ``chance (another item's): SSMS 1.667, KL 9.853``."""
    by_kind: dict[str, list[str]] = {}
    for bound in evaluation.bounds:
        by_kind.setdefault(bound.kind, []).append(f"{bound.measure} {number_text(bound.value)}")
    yield from (f"{kind}: {', '.join(values)}" for kind, values in by_kind.items())


def _difference_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    rows = [
        [d.measure, f"{d.method} − {d.other}", score_text(d.value), _interval(d.low, d.high), str(d.items)]
        for d in evaluation.differences
    ]
    return ["metric", "methods", "difference", "95 % interval", "items"], rows


def _score_rows(evaluation: Evaluation) -> tuple[list[str], list[list[Any]]]:
    header = ["method", "measure", "value", "low", "high", "items", "place"]
    marks = _marks(evaluation)
    rows = [
        [s.method, s.measure, s.value, s.low, s.high, s.items, marks.get((s.method, s.measure))]
        for s in evaluation.scores
    ]
    return header, rows


def _item_rows(evaluation: Evaluation) -> tuple[list[str], list[list[Any]]]:
    names = list(next(iter(evaluation.values.values()), {}))
    rows = [
        [method, item, *(float(values[name][number]) for name in names)]
        for method, values in evaluation.values.items()
        for number, item in enumerate(evaluation.items)
    ]
    return ["method", "item", *names], rows


def _records(records: Sequence[Any], columns: Sequence[str]) -> str:
    return csv_text(columns, [[getattr(record, column) for column in columns] for record in records])


def _fact_rows(evaluation: Evaluation) -> list[list[str]]:
    return [
        [f.folder, str(f.expected), str(f.usable), *map(_count, (f.silent, f.clipped)), *map(score_text, f.seconds)]
        for f in evaluation.facts
    ]


def _problem_lines(evaluation: Evaluation) -> Iterator[str]:
    """Counts the problems of each folder, and names the first."""
    by_folder: dict[str, list[str]] = {}
    for problem in evaluation.problems:
        by_folder.setdefault(problem.folder, []).append(f"{problem.item}: {problem.reason}")
    for folder, reasons in by_folder.items():
        yield f"{folder}: {len(reasons)} missing or unusable"
        yield from (f"  {reason}" for reason in reasons[:MOST_SHOWN])
        if len(reasons) > MOST_SHOWN:
            yield f"  and {len(reasons) - MOST_SHOWN} more, see problems.csv"


def _by_method(evaluation: Evaluation) -> dict[str, list[Score]]:
    rows: dict[str, list[Score]] = {}
    for score in evaluation.scores:
        rows.setdefault(score.method, []).append(score)
    return rows


def _marks(evaluation: Evaluation) -> dict[tuple[str, str], int]:
    """First and second place of each column, by method and measure."""
    marks: dict[tuple[str, str], int] = {}
    for name, measure in evaluation.measured.items():
        values = {(score.method, name): score.value for score in evaluation.scores if score.measure == name}
        marks |= first_two(values, measure.higher_is_better)
    return marks


def _count(value: int | None) -> str:
    return MISSING if value is None else str(value)


def score_text(value: float) -> str:
    """Writes a number of a table; NaN is an empty cell."""
    return MISSING if math.isnan(value) else number_text(value)


def _interval(low: float, high: float) -> str:
    return MISSING if math.isnan(low) else f"[{number_text(low)}, {number_text(high)}]"


def _with_interval(score: Score) -> str:
    return " ".join(filter(None, (score_text(score.value), _interval(score.low, score.high))))


def latex_text(text: str) -> str:
    """Writes text for LaTeX."""
    return text.replace("\\", "/").translate(_LATEX)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
