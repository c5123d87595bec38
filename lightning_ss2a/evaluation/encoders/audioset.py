"""Reads AudioSet's names of its classes."""

import csv
from pathlib import Path

from lightning_ss2a.errors import InputError, one_line

CLASSES = 527
"""Of AudioSet, of which YAMNet knows 521."""


def read_classes(path: Path) -> dict[str, str]:
    """Reads AudioSet's ``class_labels_indices.csv``: display names by id (``/m/09x0r``), in AudioSet's order.

    Raises:
        InputError: the file cannot be read, lacks a column, or names a class twice.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["mid"], row["display_name"].strip()) for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        reason = "needs the columns mid and display_name" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{path}: not AudioSet's list of classes ({reason})") from error
    names = dict(rows)
    if len(names) != len(rows) or len(set(names.values())) != len(rows):
        raise InputError(f"{path}: names a class twice")
    return names
