"""Gathers batches from whole splits that are in main memory or on the training device."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.data.loading.batch_order import (
    MemoryPlan,
    Purpose,
    derangement,
    generator,
    group_order,
    one_row_per_group,
    view_choices,
)
from lightning_ss2a.data.loading.row_selection import selection_identity
from lightning_ss2a.data.loading.tensors import (
    Batch,
    Rows,
    between,
    count,
    gather,
    host_lengths,
    longest_rows,
    take,
    tensor_column,
    to_batch,
)
from lightning_ss2a.errors import InputError

AUDIO_FIELDS = ("audio",)
EVALUATION_ONLY = ("key", "group")


@dataclass(frozen=True)
class MemoryRows:
    """The rows of some splits, in storage dtype, on one device.

    Args:
        rows: all columns.
        views: number of views of each field that has several; such columns are [rows, views, width].
        bounds: where each data set's rows start and the last one's end, int [data sets + 1].
        subset: numbers of the rows that take part, increasing, int64 [rows that take part]; None: all.
    """

    rows: Rows
    views: dict[str, int]
    bounds: np.ndarray
    subset: Tensor | None = None

    @property
    def total(self) -> int:
        """Rows held."""
        return count(self.rows)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(column.device for column in self.rows.values() if isinstance(column, Tensor))

    @cached_property
    def groups(self) -> np.ndarray:
        """Group of each row, numbered from 0 in order of first appearance; data sets share no group. int64 [rows]."""
        groups, first = tensor_column(self.rows, "group").numpy(force=True), 0
        numbered: list[np.ndarray] = []
        for start, stop in pairwise(self.bounds):
            numbered.append(first + number_groups(groups[start:stop]))
            first = numbered[-1].max(initial=first - 1) + 1
        return np.concatenate(numbered)

    @cached_property
    def numbers(self) -> np.ndarray | None:
        """``subset`` where plans are made."""
        return None if self.subset is None else self.subset.numpy(force=True)

    @cached_property
    def lengths(self) -> dict[str, np.ndarray]:
        """Items of each row of ragged columns, int64 [rows]."""
        return host_lengths(self.rows)

    @property
    def groups_that_take_part(self) -> np.ndarray:
        """Group of each row that takes part, int64 [rows that take part]."""
        return self.groups if self.numbers is None else self.groups[self.numbers]

    def units(self, of_groups: bool) -> list[int]:
        """Counts the rows, or the groups, of each data set that take part."""
        bounds = self.bounds if self.numbers is None else np.searchsorted(self.numbers, self.bounds)
        if not of_groups:
            return np.diff(bounds).tolist()
        groups = self.groups_that_take_part
        return [len(np.unique(groups[start:stop])) for start, stop in pairwise(bounds)]

    def select(self, numbers: np.ndarray) -> "MemoryRows":
        """Selects the rows with these numbers, int64 [rows that take part], increasing; no column is copied."""
        writable = np.array(numbers)  # PyTorch warns of others
        return replace(self, subset=torch.from_numpy(writable).to(self.device))

    def with_every_view(self) -> "MemoryRows":
        """Gives the same rows, all views of each instead of their mean."""
        return replace(self, views={})

    def first_of_groups(self) -> "MemoryRows":
        """Selects the first row of each group."""
        groups = self.groups
        return self.select(one_row_per_group(groups, np.zeros(groups.max(initial=-1) + 1)))

    def __len__(self) -> int:
        return self.total if self.subset is None else len(self.subset)

    def read(self, start: int, stop: int) -> Batch:
        """Makes an evaluation batch: rows start to stop, the mean of the embeddings of all views of each."""
        if self.subset is None:
            rows, index = between(self.rows, start, stop), torch.arange(start, stop, device=self.device)
        else:
            index = self.subset[start:stop]
            rows = take(self.rows, index)
        return evaluation_batch(rows, self.views, index)


def evaluation_batch(rows: Rows, views: dict[str, int], index: Tensor) -> Batch:
    """Makes a batch of rows, with the mean of the (raw) embeddings of all views."""
    means = {name: tensor_column(rows, name).float().mean(dim=1) for name in views}
    return to_batch({**rows, **means, "index": index})


@dataclass
class MemorySource:
    """Training batches gathered from memory.

    Args:
        table: the rows.
        plan: the order of the rows that take part, numbered without gaps; of their groups, if ``by_group``.
        share: the part of a global batch that this rank takes.
        by_group: draw groups, and one random row of each group drawn, another each epoch.
        shuffle_pairs: pair each row that takes part with the audio of another that does, the same in every epoch.
        pin: page-locked batches, for asynchronous copies to a GPU.

    Raises:
        InputError: pairs to shuffle, but not two rows.
    """

    table: MemoryRows
    plan: MemoryPlan
    share: slice
    by_group: bool = False
    shuffle_pairs: bool = False
    pin: bool = False
    _partner: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.shuffle_pairs:
            self._partner = self._on_device(self._partners())
        self._selection = selection_identity(self.table.numbers, self.table.total)
        self._columns = {name: c for name, c in self.table.rows.items() if name not in EVALUATION_ONLY}

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return self.plan.batches

    @property
    def identity(self) -> dict[str, Any]:
        """What batch numbers depend on."""
        return {
            "residency": "memory or device",
            "rows_per_group": "one" if self.by_group else "all",
            "shuffle_pairs": self.shuffle_pairs,
            **self.plan.identity,
            **self._selection,
        }

    def iterate(self, epoch: int, first: int) -> Iterator[Batch]:
        """Makes batches ``first`` and on of an epoch."""
        # The epoch's numbers go to the device once; after that the host waits for nothing.
        order = self._order(epoch)[first:, self.share]
        longest = longest_rows(self.table.lengths, order)
        views = {
            name: self._on_device(self._view_choices(name, epoch, first)[:, self.share]) for name in self.table.views
        }
        for i, index in enumerate(self._on_device(order)):
            batch = self._gather(index, {name: chosen[i] for name, chosen in views.items()}, longest[i])
            yield {name: x.pin_memory() for name, x in batch.items()} if self.pin else batch

    def _on_device(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self.table.device)

    def _order(self, epoch: int) -> np.ndarray:
        """Orders the rows of an epoch: row numbers, int64 [batches, batch_size]."""
        order = self.plan.order(epoch)
        if self.by_group:
            choice = generator(self.plan.seed, Purpose.GROUPS, epoch).random(sum(self.plan.rows))
            order = one_row_per_group(self.table.groups_that_take_part, choice)[order]
        if self.table.numbers is not None:
            order = self.table.numbers[order]
        return order.reshape(self.batches, self.plan.batch_size)

    def _partners(self) -> np.ndarray:
        """Pairs each row number with the row whose audio it gets; of rows that take part, another that does."""
        numbers, rows = self.table.numbers, len(self.table)
        if rows < 2:
            raise InputError(f"data.shuffle_pairs needs at least 2 rows to train on, found {rows}: it swaps audio")
        if numbers is None:
            return derangement(rows, self.plan.seed)
        partner = np.arange(self.table.total)
        partner[numbers] = numbers[derangement(rows, self.plan.seed)]
        return partner

    def _view_choices(self, name: str, epoch: int, first: int) -> np.ndarray:
        number = sorted(self.table.views).index(name)
        plan = self.plan
        return view_choices(
            plan.seed,
            epoch,
            self.table.views[name],
            number,
            start=first,
            stop=self.batches,
            batch_size=plan.batch_size,
        )

    def _gather(self, index: Tensor, views: dict[str, Tensor], longest: dict[str, int]) -> Batch:
        batch = gather(self._columns, index, views, longest)
        if self._partner is not None:
            audio = {name: self._columns[name] for name in AUDIO_FIELDS}
            chosen = {name: view for name, view in views.items() if name in audio}
            batch.update(gather(audio, self._partner[index], chosen, {}))
        return {**batch, "index": index}


def number_groups(groups: np.ndarray) -> np.ndarray:
    """Numbers groups from 0 in order of first appearance, int64 [rows]."""
    order, counts = group_order(groups)
    numbers = np.empty(len(groups), np.int64)
    numbers[order] = np.repeat(np.arange(len(counts)), counts)
    return numbers
