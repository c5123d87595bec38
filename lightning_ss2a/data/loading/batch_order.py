"""Plans which rows make up which batch: pure arithmetic, a function of (seed, epoch) alone.

Rows are numbered through all data sets, splits and shards that are trained together. Nothing here depends on the number
of processes or workers except :func:`rank_slice`: a global batch holds the same rows in the same order on any machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np

from lightning_ss2a.errors import InputError


class Purpose(IntEnum):
    """What random numbers are for; keeps the generators of one seed apart."""

    ORDER = 1
    FRACTION = 2
    CHUNKS = 3
    ROTATION = 4
    LANES = 5
    VIEWS = 6
    GROUPS = 7
    PAIRS = 8
    SIMULATED_WORLD = 9
    SIMULATED_ROWS = 10


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Makes a random generator that depends on the arguments alone, on every machine."""
    return np.random.default_rng([seed, purpose, *key])


def rank_slice(batch_size: int, rank: int, world_size: int) -> slice:
    """Gives the contiguous part of a global batch that one rank trains on.

    Raises:
        InputError: the batch does not divide among the ranks.
    """
    if batch_size % world_size:
        raise InputError(
            f"data.batch_size is the global batch and must divide among the processes: {batch_size} rows, "
            f"{world_size} processes; use a multiple of {world_size}"
        )
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


@dataclass(frozen=True)
class Draws:
    """What an epoch draws from one data set: whole passes, and a range of an endless cyclic order of its rows."""

    passes: int
    start: int
    stop: int


def draws(rows: int, weight: float, epoch: int) -> Draws:
    """Computes the draws of one data set in an epoch.

    The whole part of the weight is passes over all rows. The fractional part walks through one fixed cyclic order,
    epoch after epoch, so that rows get their turn equally often and none comes twice in an epoch (weight <= 1).
    """
    exact = Fraction(str(weight))
    fraction = exact - math.floor(exact)
    return Draws(math.floor(exact), math.floor(epoch * fraction * rows), math.floor((epoch + 1) * fraction * rows))


def count_batches(rows: Sequence[int], weights: Sequence[float], batch_size: int) -> int:
    """Counts the full global batches of every epoch.

    Fractional weights draw one row more in some epochs; the number of batches is the same in all of them.

    Raises:
        InputError: an epoch does not fill one batch.
    """
    drawn = sum(math.floor(Fraction(str(weight)) * n) for n, weight in zip(rows, weights, strict=True))
    if drawn < batch_size:
        advice = f"use a batch_size of at most {drawn}" if drawn else "raise data.weights, or train on more rows"
        raise InputError(
            f"data.batch_size is {batch_size} rows, but an epoch draws only {drawn} "
            f"(rows {list(rows)}, weights {list(weights)}); {advice}"
        )
    return drawn // batch_size


def _identity(plan: "MemoryPlan | StreamPlan") -> dict[str, Any]:
    rows, weights = list(plan.rows), list(plan.weights)
    return {"batch_size": plan.batch_size, "seed": plan.seed, "rows": rows, "weights": weights}


@dataclass(frozen=True)
class MemoryPlan:
    """The order of rows that are all in memory: one permutation of everything that an epoch draws.

    Args:
        rows: rows (or groups) of each data set.
        weights: times a row of each data set is drawn an epoch, on average.
        batch_size: rows of a global batch.
        seed: seed of every order.
    """

    rows: Sequence[int]
    weights: Sequence[float]
    batch_size: int
    seed: int

    @property
    def batches(self) -> int:
        """Global batches an epoch."""
        return count_batches(self.rows, self.weights, self.batch_size)

    @property
    def identity(self) -> dict[str, Any]:
        """What "batch 17 of epoch 3" depends on, in plain numbers."""
        return _identity(self)

    def order(self, epoch: int) -> np.ndarray:
        """Orders the rows of an epoch: row numbers, int64 [batches * batch_size], one batch after the other."""
        drawn, offset = [], 0
        for i, (rows, weight) in enumerate(zip(self.rows, self.weights, strict=True)):
            count = draws(rows, weight, epoch)
            drawn += [np.arange(offset, offset + rows)] * count.passes
            if count.stop > count.start:
                cycle = generator(self.seed, Purpose.FRACTION, i).permutation(rows)
                drawn.append(offset + cycle[np.arange(count.start, count.stop) % rows])
            offset += rows
        order = generator(self.seed, Purpose.ORDER, epoch).permutation(np.concatenate(drawn))
        return order[: self.batches * self.batch_size]


def take_range(segments: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Cuts rows start to stop out of row ranges [n, 2] laid end to end, again as row ranges [m, 2]."""
    ends = np.cumsum(segments[:, 1] - segments[:, 0])
    first, last = np.searchsorted(ends, [start, stop], side="right")
    begins = ends - (segments[:, 1] - segments[:, 0])
    part, offset = segments[first : last + 1], begins[first : last + 1]
    lower = part[:, 0] + np.maximum(start - offset, 0)
    upper = part[:, 0] + np.minimum(stop - offset, part[:, 1] - part[:, 0])
    return np.stack([lower, upper], axis=1)[upper > lower]


@dataclass(frozen=True)
class StreamPlan:
    """The order of rows that are read from files as training goes on.

    An epoch is a sequence of chunks (runs of consecutive rows, cheap to read) in random order, chunks of several data
    sets mixed in proportion, all of it rotated by a random offset, so that the rows left out at its end are others each
    time. The sequence is cut into windows of whole global batches. Within a window a lane is as many consecutive rows
    as the window has batches, and every batch takes one random row of each lane. A rank owns a contiguous range of
    lanes: it reads its own rows only, and batches are the same whatever the number of ranks.

    Args:
        chunks: for each data set, its chunks as row ranges [n, 2].
        weights: times a row of each data set is drawn an epoch, on average.
        batch_size: rows of a global batch.
        shuffle_rows: rows of a window, at most (at least one batch).
        seed: seed of every order.
    """

    chunks: Sequence[np.ndarray]
    weights: Sequence[float]
    batch_size: int
    shuffle_rows: int
    seed: int

    @property
    def rows(self) -> list[int]:
        """Rows of each data set."""
        return [int((chunks[:, 1] - chunks[:, 0]).sum()) for chunks in self.chunks]

    @property
    def batches(self) -> int:
        """Global batches an epoch."""
        return count_batches(self.rows, self.weights, self.batch_size)

    @property
    def identity(self) -> dict[str, Any]:
        """What "batch 17 of epoch 3" depends on, in plain numbers."""
        return _identity(self)

    @property
    def windows(self) -> int:
        """Windows an epoch, all of nearly the same size."""
        return math.ceil(self.batches / max(1, self.shuffle_rows // self.batch_size))

    def window_batches(self, window: int) -> range:
        """Gives the batches that a window holds."""
        batches, windows = self.batches, self.windows
        return range(window * batches // windows, (window + 1) * batches // windows)

    def window_of(self, batch: int) -> int:
        """Finds the window that holds a batch."""
        return ((batch + 1) * self.windows - 1) // self.batches

    def sequence(self, epoch: int) -> np.ndarray:
        """Orders all that an epoch draws, as row ranges, int64 [n, 2]."""
        drawn = [self._drawn(i, epoch) for i in range(len(self.chunks))]
        random = generator(self.seed, Purpose.ROTATION, epoch)
        # Evenly spaced with a random shift each: data sets keep their proportion in every window.
        places = [(np.arange(len(d)) + random.random(len(d))) / max(1, len(d)) for d in drawn]
        sequence = np.concatenate(drawn)[np.argsort(np.concatenate(places), kind="stable")]
        total = int((sequence[:, 1] - sequence[:, 0]).sum())
        offset = int(random.integers(total))
        return np.concatenate([take_range(sequence, offset, total), take_range(sequence, 0, offset)])

    def _drawn(self, i: int, epoch: int) -> np.ndarray:
        chunks, rows = self.chunks[i], self.rows[i]
        count = draws(rows, self.weights[i], epoch)
        drawn = [chunks[:0]]
        for number in range(count.passes):
            drawn.append(generator(self.seed, Purpose.CHUNKS, epoch, i, number).permutation(chunks))
        if count.stop > count.start:
            cycle = generator(self.seed, Purpose.FRACTION, i).permutation(chunks)
            start = count.start % rows
            stop = start + count.stop - count.start
            drawn += [take_range(cycle, start, min(stop, rows)), take_range(cycle, 0, max(0, stop - rows))]
        return np.concatenate(drawn)

    def window_rows(self, sequence: np.ndarray, window: int, rank: int, world_size: int) -> np.ndarray:
        """Selects what a rank reads for a window, as row ranges [n, 2] of an epoch's sequence."""
        batches, lanes = self.window_batches(window), rank_slice(self.batch_size, rank, world_size)
        start = batches.start * self.batch_size
        return take_range(sequence, start + lanes.start * len(batches), start + lanes.stop * len(batches))

    def window_order(self, epoch: int, window: int, rank: int, world_size: int) -> np.ndarray:
        """Deals the rows read to batches: positions among them, int64 [batches, rows of the rank]."""
        size, lanes = len(self.window_batches(window)), rank_slice(self.batch_size, rank, world_size)
        random = generator(self.seed, Purpose.LANES, epoch, window).random((self.batch_size, size), dtype=np.float32)
        within = np.argsort(random[lanes], axis=1)
        return (within + np.arange(len(within))[:, None] * size).T


def view_choices(
    seed: int, epoch: int, views: int, field: int, *, start: int, stop: int, batch_size: int
) -> np.ndarray:
    """Draws the view that each row of batches start to stop shows, int64 [batches, batch_size].

    A function of (seed, epoch, batch, position in the global batch, field).
    """
    chosen = [
        generator(seed, Purpose.VIEWS, epoch, batch, field).integers(views, size=batch_size)
        for batch in range(start, stop)
    ]
    return np.stack(chosen)


def one_row_per_group(groups: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Picks one row of each group, in the order in which the groups first appear.

    Args:
        groups: group of each row, any integers, [rows].
        choice: a number in [0, 1) for each distinct group (in order of first appearance): 0 takes its first row.

    Returns:
        Row numbers, int64 [distinct groups].
    """
    order, counts = group_order(groups)
    starts = np.cumsum(counts) - counts
    return order[starts + np.minimum((choice * counts).astype(np.int64), counts - 1)]


def group_order(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts row numbers by group, int64 [rows], groups in order of first appearance; also counts the rows of each."""
    _, first, group, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    appearance = np.argsort(first)
    rank = np.empty_like(appearance)
    rank[appearance] = np.arange(len(appearance))
    return np.argsort(rank[group], kind="stable"), counts[appearance]


def derangement(rows: int, seed: int) -> np.ndarray:
    """Draws a random permutation without fixed points, int64 [rows], of at least 2: one cycle through all rows."""
    cycle = generator(seed, Purpose.PAIRS).permutation(rows)
    partner = np.empty_like(cycle)
    partner[cycle] = np.roll(cycle, 1)
    return partner
