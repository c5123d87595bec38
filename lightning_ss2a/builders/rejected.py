"""Writes tables beside shards: what of a list is not used, and why."""

import csv
import io
from collections.abc import Iterable, Sequence

REJECTED = "rejected.csv"
"""File beside the shards."""


def rejected_csv(rows: Iterable[Sequence[str]]) -> str:
    """Writes the table of what is left out, of rows (file, place in the list, key, reason)."""
    return csv_text(["file", "row", "key", "reason"], rows)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table as CSV, its lines ending as Unix's do."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return table.getvalue()
