"""Reads CSV files of media: columns by name, every mistake named by file and row."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_ss2a.errors import InputError, nearest_name

NO_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and what Python makes of file names that are not UTF-8."""


def csv_rows(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    header: Sequence[str] | None = None,
    may_be_empty: Sequence[str] = (),
    doubts_others: bool = False,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Reads the rows of a CSV file in UTF-8; empty rows are left out, further columns not read.

    Args:
        path: the file.
        required: columns that it must have, with no empty cell.
        optional: columns that it may have.
        header: names of its columns, if its first line does not give them.
        may_be_empty: those of the required columns that may have empty cells.
        doubts_others: a further column whose name is nearly that of an optional one is taken for a slip, and refused.

    Yields:
        place for messages (``x.csv row 4``), and the row's cells by required and optional column, without white space
        around them; an empty one is a missing one.

    Raises:
        InputError: no such file, no CSV file, or a column or cell that is missing or no text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            names = list(header) if header else [cell.strip() for cell in next(rows, [])]
            _check_header(names, path, required, optional, doubts_others)
            columns, needed = (*required, *optional), {*required} - {*may_be_empty}
            for number, cells in enumerate(rows, start=1 if header else 2):
                if len(cells) > len(names):
                    raise InputError(
                        f"{path} row {number}: {len(cells)} cells under {len(names)} columns; put a cell with a comma "
                        "in double quotes"
                    )
                if any(cell.strip() for cell in cells):
                    place = f"{path} row {number}"
                    given = dict(zip(names, cells, strict=False))
                    yield place, _checked(given, place, columns, needed)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except csv.Error as error:
        raise InputError(f"{path} line {rows.line_num}: not a CSV file ({error})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error


def _check_header(
    names: list[str], path: Path, required: Sequence[str], optional: Sequence[str], doubts_others: bool
) -> None:
    may = f" and may have {', '.join(optional)}" if optional else ""
    for column in required:
        if column not in names:
            raise InputError(
                f"{path}: no column {column!r} in the header, which is {','.join(names)[:100]!r}; needs "
                f"{', '.join(required)}{may}, with commas between them"
            )
    missing = [column for column in optional if column not in names]
    for name in {*names} - {*required, *optional} if doubts_others else ():
        if (meant := nearest_name(name, missing)) is not None:
            raise InputError(f"{path}: the header has a column {name!r}; did you mean {meant}?")
    for column in (*required, *optional):
        if names.count(column) > 1:
            raise InputError(f"{path}: the header has {names.count(column)} columns {column!r}; keep one")


def _checked(cells: dict[str, str], place: str, columns: Sequence[str], needed: set[str]) -> dict[str, str]:
    given = {name: cells.get(name, "").strip() for name in columns}
    for column, cell in given.items():
        if NO_TEXT.search(cell):
            raise InputError(f"{place}: column {column} holds a line break or another control character: {cell!r}")
    for column in columns:
        if column in needed and not given[column]:
            raise InputError(f"{place}: column {column} is empty")
    return given
