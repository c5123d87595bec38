"""Assigns groups to splits and folds."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from lightning_ss2a.errors import InputError


def connected_rows(marks: Sequence[Sequence[Hashable]]) -> list[int]:
    """Joins rows that share a mark, directly or through other rows, into components (union-find).

    Args:
        marks: the marks of each row: its picture, its sound, its group.

    Returns:
        for each row, the number of the first row of its component.
    """
    parents = list(range(len(marks)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]  # halve the path on the way
            row = parents[row]
        return row

    owners: dict[Hashable, int] = {}
    for row, own in enumerate(marks):
        for mark in own:
            first, second = sorted((root(owners.setdefault(mark, row)), root(row)))
            parents[second] = first
    return [root(row) for row in range(len(marks))]


def assign_splits(
    groups: Sequence[Hashable], classes: Sequence[str], *, folds: int, validation_fraction: float, seed: int
) -> list[str]:
    """Assigns rows to splits, whole groups at a time, so that each class is spread evenly over the splits.

    Args:
        groups: group of each row.
        classes: class of each row; that of its first row is the group's.
        folds: number of folds, ``fold0`` and so on; 0: the splits are ``train`` and ``validation``.
        validation_fraction: part of the groups that goes to ``validation``, without folds.
        seed: of the shuffling within classes.

    Raises:
        InputError: there are fewer groups than splits.
    """
    members: dict[str, list[Hashable]] = defaultdict(list)
    for group, class_name in dict(reversed(list(zip(groups, classes, strict=True)))).items():
        members[class_name].append(group)
    generator = np.random.default_rng(seed)
    order: list[Hashable] = []
    for class_name in sorted(members):
        of_class = sorted(members[class_name], key=str)
        order += [of_class[i] for i in generator.permutation(len(of_class))]
    if len(order) < max(folds, 2):
        raise InputError(f"only {len(order)} groups of pairs, which cannot be spread over {max(folds, 2)} splits")
    splits = [f"fold{i % folds}" if folds else _side(i, len(order), validation_fraction) for i in range(len(order))]
    split_of = dict(zip(order, splits, strict=True))
    return [split_of[group] for group in groups]


def _side(position: int, groups: int, fraction: float) -> str:
    """Assigns evenly spaced positions to ``validation``: as many as the fraction says, at least one, and not all."""
    held_out = min(max(round(groups * fraction), 1), groups - 1)
    chosen = (position + 1) * held_out // groups > position * held_out // groups
    return "validation" if chosen else "train"
