"""Checks the numbers of the rows that take part, where not all do, and tells selections apart by a digest.

Whoever plans with a selection numbers its rows from 0, without gaps, and maps them to row numbers at the end;
embeddings stay where they are.
"""

import hashlib

import numpy as np

from lightning_ss2a.errors import InputError

SELECTED_ROWS = "selected_rows"
"""Name of a selection in a checkpoint."""

_DIGEST_CHARACTERS = 16


def checked_rows(rows: np.ndarray, total: int) -> np.ndarray:
    """Checks row numbers: they exist, each once, in order. Gives a copy that cannot be written to, int64 [rows].

    Args:
        rows: integers, [rows]; may be empty, of any type then.
        total: number of rows that there are.

    Raises:
        InputError: they are no list of integers, not strictly increasing, or out of range.
    """
    rows = np.asarray(rows)
    if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
        raise InputError(
            f"training rows need to be a list of row numbers (integers), found {rows.dtype} {list(rows.shape)}; "
            "np.flatnonzero makes row numbers of a mask"
        )
    rows = rows.astype(np.int64)
    steps = np.flatnonzero(rows[1:] <= rows[:-1])
    if len(steps):
        one, other = rows[steps[0] : steps[0] + 2]
        raise InputError(f"training rows need to be strictly increasing, but {other} comes after {one}")
    if len(rows) and not 0 <= rows[0] <= rows[-1] < total:
        wrong = rows[0] if rows[0] < 0 else rows[-1]
        raise InputError(f"training row {wrong} does not exist: the data has rows 0 to {total - 1}")
    rows.setflags(write=False)
    return rows


def selection_identity(rows: np.ndarray | None, total: int) -> dict[str, str]:
    """Names what the meaning of "batch 17 of epoch 3" depends on besides, if there is a selection.

    Args:
        rows: row numbers selected, int64 [rows]; None: all.
        total: number of rows that there are.
    """
    if rows is None:
        return {}
    digest = hashlib.sha256(np.ascontiguousarray(rows, "<i8").data).hexdigest()[:_DIGEST_CHARACTERS]
    return {SELECTED_ROWS: f"{len(rows)} of {total} (sha256 {digest})"}
