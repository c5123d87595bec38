"""Joins evaluations to the paper's table: sections of rows (single, multi source), groups of columns (data sets)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_ss2a.errors import InputError, did_you_mean, one_line
from lightning_ss2a.evaluation.places import ARROWS, LATEX_ARROWS, LATEX_MARKS, MARKDOWN_MARKS, first_two
from lightning_ss2a.evaluation.reporting import latex_text, score_text
from lightning_ss2a.files import make_folder, to_path, write_all_whole
from lightning_ss2a.tables import markdown_table

SCORES = "scores.json"


@dataclass(frozen=True)
class Column:
    """A metric on a data set.

    Attributes:
        data: name of the data set.
        measure: name of the metric.
        higher_is_better: which end of its range is good.
    """

    data: str
    measure: str
    higher_is_better: bool

    @property
    def mark(self) -> str:
        """The metric with an arrow that points to the better end."""
        return f"{self.measure} {ARROWS[self.higher_is_better]}"


@dataclass(frozen=True)
class Section:
    """Some rows.

    Attributes:
        name: of the section.
        values: by method, then by data set and metric; NaN: nothing could be measured.
    """

    name: str
    values: Mapping[str, Mapping[tuple[str, str], float]]


@dataclass(frozen=True)
class PaperTable:
    """The table.

    Attributes:
        columns: in order; those of a data set stand together.
        sections: in order.
        unranked: methods that no place is given to, such as the true sounds.
    """

    columns: Sequence[Column]
    sections: Sequence[Section]
    unranked: Sequence[str] = ()

    def place(self, section: Section, method: str, column: Column) -> int:
        """Gives 1 or 2 for first and second place among a section's methods, else 0; equal values share one."""
        key = (column.data, column.measure)
        ranked = {
            name: values.get(key, math.nan) for name, values in section.values.items() if name not in self.unranked
        }
        return first_two(ranked, column.higher_is_better).get(method, 0)

    def markdown(self) -> str:
        """Writes a table in which the first place is bold, the second underlined."""
        header = ["", "method", *(f"{column.data}: {column.mark}" for column in self.columns)]
        rows = [
            [section.name, method, *self._cells(section, method, MARKDOWN_MARKS, "")]
            for section in self.sections
            for method in section.values
        ]
        return markdown_table(header, rows) + "\n"

    def latex(self) -> str:
        """Writes it with booktabs and multirow, as in the paper."""
        groups = [(data, [c for c in self.columns if c.data == data]) for data in {c.data: None for c in self.columns}]
        heads = [rf"\multicolumn{{{len(own)}}}{{c}}{{{latex_text(data)}}}" for data, own in groups]
        rules, first = [], 3
        for _, own in groups:
            rules.append(rf"\cmidrule(lr){{{first}-{first + len(own) - 1}}}")
            first += len(own)
        names = [f"{latex_text(column.measure)} {LATEX_ARROWS[column.higher_is_better]}" for column in self.columns]
        lines = [
            rf"\begin{{tabular}}{{ll{'c' * len(self.columns)}}}",
            r"\toprule",
            " & ".join(["", "Method", *heads]) + r" \\",
            " ".join(rules),
            " & ".join(["", "", *names]) + r" \\",
        ]
        for section in self.sections:
            lines.append(r"\midrule")
            title = rf"\multirow{{{len(section.values)}}}{{*}}{{{latex_text(section.name)}}}"
            for number, method in enumerate(section.values):
                cells = self._cells(section, method, LATEX_MARKS, "--")
                lines.append(" & ".join(["" if number else title, latex_text(method), *cells]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def _cells(self, section: Section, method: str, marks: Mapping[int, str], missing: str) -> list[str]:
        found = []
        for column in self.columns:
            text = score_text(section.values[method].get((column.data, column.measure), math.nan))
            found.append(marks[self.place(section, method, column)] % text if text else missing)
        return found


def join_reports(sections: Mapping[str, Mapping[str, str]], unranked: Sequence[str] = ()) -> PaperTable:
    """Reads the reports of evaluations.

    Args:
        sections: by name of the section and of the data set, the folder of a report.
        unranked: methods that no place is given to.

    Raises:
        InputError: a report is missing or is none; nothing is named; no report has a method of ``unranked``; or a
            metric of one name was not measured in the same way, by the same models, in two reports.
    """
    if not any(sections.values()):
        raise InputError("sections is empty: name reports, as sections: {Single-Source: {VGG-SS: evaluation}}")
    columns: dict[tuple[str, str], Column] = {}
    ways: dict[str, tuple[Path, Any]] = {}
    joined = []
    for section, reports in sections.items():
        values: dict[str, dict[tuple[str, str], float]] = {}
        for data, folder in reports.items():
            file = to_path(folder) / SCORES
            for score, way in _scores_of(file):
                _check_way(score["measure"], file, way, ways)
                key = (data, score["measure"])
                columns.setdefault(key, Column(*key, score["higher_is_better"]))
                value = score["value"]
                values.setdefault(score["method"], {})[key] = math.nan if value is None else float(value)
        joined.append(Section(section, values))
    methods = sorted({method for section in joined for method in section.values})
    for method in unranked:
        if method not in methods:
            raise InputError(f"unranked: no report has the method {method}; {did_you_mean(method, methods)}")
    order = list(dict.fromkeys(data for data, _ in columns))
    together = sorted(columns.values(), key=lambda column: order.index(column.data))
    return PaperTable(together, joined, tuple(unranked))


def write_table(folder: Path, table: PaperTable) -> list[Path]:
    """Writes ``table.md`` and ``table.tex``.

    Raises:
        InputError: the folder cannot be made.
    """
    make_folder(folder, "the table")
    texts = {"table.md": table.markdown(), "table.tex": table.latex()}
    return write_all_whole({folder / name: text for name, text in texts.items()})


def _scores_of(file: Path) -> list[tuple[dict[str, Any], Any]]:
    """Reads the scores of a report, each with how it was measured: the measure's options and its models."""
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); name folders that ss2a evaluate wrote") from error
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({one_line(error)}); evaluate again") from error
    try:
        facts = document["reproducibility"]
        found = []
        for score in document["scores"]:
            measure = facts["measures"][score["measure"]]
            needed = [name for name in _MODELS.get(measure["class"], ()) if name in facts["models"]]
            models = {name: facts["models"].get(name) for name in (measure.get("encoder"), *needed) if name}
            pictures = {"pictures": facts.get("pictures")} if measure["class"] == "CLIP" else {}
            found.append((score, {"measure": measure, "models": models, "sounds": facts["sounds"], **pictures}))
            _ = score["method"], score["value"], score["higher_is_better"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: no report of ss2a evaluate (lacks {error})") from error
    return found


_MODELS = {"CLIP": ("image_encoder",), "CLAP": ("text_encoder",), "WMAO": ("sync",), "DeSync": ("sync",)}
"""That a class of measures needs beside its encoder."""


def _check_way(name: str, file: Path, way: Any, ways: dict[str, tuple[Path, Any]]) -> None:
    other, known = ways.setdefault(name, (file, way))
    for part in known:
        if known[part] != way[part]:
            raise InputError(
                f"{file}: {name} is of {part} {way[part]}, and in {other} of {known[part]}: they do not belong in one "
                "table; evaluate again with one protocol"
            )
