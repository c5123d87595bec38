"""Checks of metric inputs that name what is wrong."""

from torch import Tensor

from lightning_ss2a.errors import InputError


def check_rows(**inputs: Tensor) -> None:
    """Checks that tensors are rows of finite numbers.

    Args:
        inputs: tensors by the name that an error calls them, ``[rows, width]``; there may be no row.

    Raises:
        ValueError: If one is not two-dimensional.
        InputError: If one holds NaN or infinity, with the number of the first such row, from 0. The caller knows which
            file that is.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional.checks import check_rows
        >>> check_rows(generated=torch.tensor([[1.0], [torch.nan]]))
        Traceback (most recent call last):
        ...
        lightning_ss2a.errors.InputError: generated: row 1 of 2 holds NaN or infinity; leave it out or compute it again
    """
    for name, rows in inputs.items():
        if rows.ndim != 2:
            raise ValueError(f"{name} must be [rows, width], got {tuple(rows.shape)}")
        broken = ~rows.isfinite().all(1)
        if broken.any():
            row = int(broken.int().argmax())
            raise InputError(
                f"{name}: row {row} of {len(rows)} holds NaN or infinity; leave it out or compute it again"
            )


def check_pairs(**inputs: Tensor) -> None:
    """Checks that tensors are rows of finite numbers, of one shape; otherwise like :func:`check_rows`."""
    shapes = {tuple(rows.shape) for rows in inputs.values()}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        found = " and ".join(str(tuple(rows.shape)) for rows in inputs.values())
        raise ValueError(f"{' and '.join(inputs)} must have one shape [rows, width], got {found}")
    check_rows(**inputs)


def check_groups(rows: int, groups: int | None = None, **inputs: Tensor) -> None:
    """Checks that tensors hold the number of a group for each row.

    Args:
        rows: rows that there are.
        groups: how many groups there are; None: any number from 0.
        inputs: tensors by the name that an error calls them, ``[rows]``.

    Raises:
        ValueError: If one has another shape or holds a number that is none of a group.
    """
    for name, group in inputs.items():
        if group.shape != (rows,):
            raise ValueError(f"{name} must be [{rows}], one number a row, got {tuple(group.shape)}")
        outside = group[(group < 0) | (group >= groups)] if groups else group[group < 0]
        if len(outside):
            raise ValueError(f"{name} must be in 0..{groups - 1 if groups else ''}, got {int(outside[0])}")
