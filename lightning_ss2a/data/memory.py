"""Whole splits as tensors, in main memory or on the training device; batches are gathered from there."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.data.plan import (
    MemoryPlan,
    Purpose,
    derangement,
    generator,
    group_order,
    one_row_per_group,
    view_choices,
)
from lightning_ss2a.data.rows import Batch, Rows, between, count, gather, take, to_batch

AUDIO_FIELDS = ("audio",)
EVALUATION_ONLY = ("key", "group")


@dataclass(frozen=True)
class MemoryRows:
    """The rows of some splits, in storage dtype, on one device.

    Args:
        rows: all columns.
        views: number of views of each field that has several; such columns are [rows, views, width].
        bounds: where each data set's rows start and the last one's end, int [data sets + 1].
        subset: row numbers that evaluation reads; None: all.
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
        groups, numbered, first = self.rows["group"].numpy(force=True), [], 0
        for start, stop in pairwise(self.bounds):
            numbered.append(first + number_groups(groups[start:stop]))
            first = numbered[-1].max(initial=first - 1) + 1
        return np.concatenate(numbered)

    def units(self, of_groups: bool) -> list[int]:
        """Number of rows, or of groups, of each data set."""
        if not of_groups:
            return np.diff(self.bounds).tolist()
        return [len(np.unique(self.groups[start:stop])) for start, stop in pairwise(self.bounds)]

    def first_of_groups(self) -> "MemoryRows":
        """The same rows, of which evaluation reads the first of each group only."""
        groups = self.groups
        first = one_row_per_group(groups, np.zeros(groups.max(initial=-1) + 1))
        return replace(self, subset=torch.from_numpy(first).to(self.device))

    def __len__(self) -> int:
        return self.total if self.subset is None else len(self.subset)

    def read(self, start: int, stop: int) -> Batch:
        """An evaluation batch: rows start to stop, the mean of the embeddings of all views of each."""
        if self.subset is None:
            rows, index = between(self.rows, start, stop), torch.arange(start, stop, device=self.device)
        else:
            index = self.subset[start:stop]
            rows = take(self.rows, index)
        return evaluation_batch(rows, self.views, index)


def evaluation_batch(rows: Rows, views: dict[str, int], index: Tensor) -> Batch:
    """Rows as a batch, with the mean of the (raw) embeddings of all views."""
    means = {name: rows[name].float().mean(dim=1) for name in views}
    return to_batch({**rows, **means, "index": index})


@dataclass
class MemorySource:
    """Training batches gathered from memory.

    Args:
        table: the rows.
        plan: the order of rows; of groups, if ``by_group``.
        share: the part of a global batch that this rank takes.
        by_group: draw groups, and one random row of each group drawn, another each epoch.
        shuffle_pairs: pair each row with the audio of another, always the same other.
        pin: page-locked batches, for asynchronous copies to a GPU.
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
            self._partner = torch.from_numpy(derangement(self.table.total, self.plan.seed)).to(self.table.device)
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
            **self.plan.identity,
        }

    def iterate(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches ``first`` and on of an epoch."""
        # The epoch's numbers go to the device once; after that nothing waits for the host.
        order = self._on_device(self._order(epoch)[first:, self.share])
        views = {
            name: self._on_device(self._view_choices(name, epoch, first)[:, self.share]) for name in self.table.views
        }
        for i, index in enumerate(order):
            batch = self._gather(index, {name: chosen[i] for name, chosen in views.items()})
            yield {name: x.pin_memory() for name, x in batch.items()} if self.pin else batch

    def _on_device(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self.table.device)

    def _order(self, epoch: int) -> np.ndarray:
        """Row numbers, [batches, batch_size]."""
        order = self.plan.order(epoch)
        if self.by_group:
            choice = generator(self.plan.seed, Purpose.GROUPS, epoch).random(sum(self.plan.rows))
            order = one_row_per_group(self.table.groups, choice)[order]
        return order.reshape(self.batches, self.plan.batch_size)

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

    def _gather(self, index: Tensor, views: dict[str, Tensor]) -> Batch:
        batch = gather(self._columns, index, views)
        if self._partner is not None:
            audio = {name: self._columns[name] for name in AUDIO_FIELDS}
            chosen = {name: view for name, view in views.items() if name in audio}
            batch.update(gather(audio, self._partner[index], chosen))
        return {**batch, "index": index}


def number_groups(groups: np.ndarray) -> np.ndarray:
    """Groups numbered from 0 in order of first appearance, int64 [rows]."""
    order, counts = group_order(groups)
    numbers = np.empty(len(groups), np.int64)
    numbers[order] = np.repeat(np.arange(len(counts)), counts)
    return numbers
