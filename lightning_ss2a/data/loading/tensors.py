"""Takes and joins rows, dicts of columns in storage dtype, and turns them into float32 batches without a loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Any]
"""Columns of a batch by name: tensors [rows, ...], and ``key``, a list of str."""


@dataclass(frozen=True)
class RaggedRows:
    """A column with any number of items in each row.

    Attributes:
        values: all items, [items, ...].
        offsets: where each row's items start and the last one's end, int64 [rows + 1].
    """

    values: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Items of each row, int64 [rows]."""
        return self.offsets[1:] - self.offsets[:-1]

    def take(self, index: Tensor) -> "RaggedRows":
        """Takes the rows with these numbers, int64 [rows], in this order."""
        starts, lengths = self.offsets[index], self.lengths[index]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        items = torch.repeat_interleave(starts - offsets[:-1], lengths)
        return RaggedRows(self.values[items + torch.arange(len(items), device=items.device)], offsets)

    def between(self, start: int, stop: int) -> "RaggedRows":
        """Slices rows start to stop."""
        offsets = self.offsets[start : stop + 1]
        return RaggedRows(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def padded(self, fill: float = 0) -> tuple[Tensor, Tensor]:
        """Pads items to [rows, longest, ...], with a mask, bool [rows, longest], of those that are real."""
        longest = max(1, int(self.lengths.max())) if len(self) else 1
        return self.take_padded(torch.arange(len(self), device=self.offsets.device), longest, fill)

    def take_padded(self, index: Tensor, longest: int, fill: float = 0) -> tuple[Tensor, Tensor]:
        """Takes rows as ``padded`` gives them; nothing waits for a device.

        Args:
            index: row numbers, int64 [rows].
            longest: items to pad to, no less than any of these rows has.
            fill: what stands in the place of items that are not there.
        """
        places = self.offsets.index_select(0, index)[:, None] + torch.arange(longest, device=index.device)
        valid = places < self.offsets.index_select(0, index + 1)[:, None]
        if not len(self.values):
            return self.values.new_full((*places.shape, *self.values.shape[1:]), fill), valid
        items = self.values.index_select(0, places.clamp(max=len(self.values) - 1).flatten())
        items = items.unflatten(0, places.shape)
        return items.masked_fill_(~valid.view(*valid.shape, *[1] * (items.ndim - 2)), fill), valid


Column = Tensor | RaggedRows | np.ndarray
Rows = dict[str, Column]


def tensor_column(rows: Mapping[str, Column], name: str) -> Tensor:
    """Gives a column that is known to be a tensor, [rows, ...]."""
    column = rows[name]
    assert isinstance(column, Tensor), name
    return column


def ragged_column(rows: Mapping[str, Column], name: str) -> RaggedRows:
    """Gives a column that is known to have any number of items in each row."""
    column = rows[name]
    assert isinstance(column, RaggedRows), name
    return column


def text_column(rows: Mapping[str, Column], name: str) -> np.ndarray:
    """Gives a column that is known to be text, numpy ``S`` [rows]."""
    column = rows[name]
    assert isinstance(column, np.ndarray), name
    return column


def count(rows: Mapping[str, Column]) -> int:
    """Counts the rows."""
    return len(next(iter(rows.values())))


def take(rows: Mapping[str, Column], index: Tensor) -> Rows:
    """Takes the rows with these numbers, int64 [rows], in this order; text columns stay on the CPU."""

    def taken(column: Column) -> Column:
        if isinstance(column, RaggedRows):
            return column.take(index)
        return column[index.cpu().numpy()] if isinstance(column, np.ndarray) else column.index_select(0, index)

    return {name: taken(column) for name, column in rows.items()}


def between(rows: Mapping[str, Column], start: int, stop: int) -> Rows:
    """Slices rows start to stop, without a copy."""
    return {
        name: column.between(start, stop) if isinstance(column, RaggedRows) else column[start:stop]
        for name, column in rows.items()
    }


def bytes_of(rows: Mapping[str, Column]) -> int:
    """Counts the bytes that the columns take."""
    columns = [(c.values, c.offsets) if isinstance(c, RaggedRows) else (c,) for c in rows.values()]
    return sum(part.nbytes for parts in columns for part in parts)


def host_lengths(rows: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Counts the items of each row of ragged columns, int64 [rows], on the CPU, where plans are made."""
    return {name: c.lengths.numpy(force=True) for name, c in rows.items() if isinstance(c, RaggedRows)}


def longest_rows(lengths: Mapping[str, np.ndarray], numbers: np.ndarray) -> list[dict[str, int]]:
    """Finds what the ragged columns of each batch are padded to: the items of its longest row, at least 1.

    Args:
        lengths: items of each row of ragged columns.
        numbers: row numbers, [batches, rows].
    """
    longest = {name: items[numbers].max(axis=1, initial=1).tolist() for name, items in lengths.items()}
    return [{name: items[i] for name, items in longest.items()} for i in range(len(numbers))]


def gather(rows: Mapping[str, Column], index: Tensor, views: Mapping[str, Tensor], longest: Mapping[str, int]) -> Batch:
    """Gathers a training batch, the rows with these numbers; nothing waits for a device.

    Args:
        rows: columns, no text.
        index: row numbers, int64 [rows].
        views: of fields [rows, views, width], the view chosen for each row.
        longest: of ragged columns, the items to pad to, no less than any of these rows has.
    """
    taken = take({name: column for name, column in rows.items() if name not in views and name not in longest}, index)
    for name, chosen in views.items():
        column = tensor_column(rows, name)
        taken[name] = column.flatten(0, 1).index_select(0, index * column.shape[1] + chosen)
    batch = to_batch(taken)
    for name, items in longest.items():
        ragged = ragged_column(rows, name)
        batch |= _with_mask(name, *ragged.take_padded(index, items, _fill(ragged)))
    return batch


def join(parts: Sequence[Mapping[str, Column]]) -> Rows:
    """Lays rows end to end."""

    def joined(name: str, first: Column) -> Column:
        if isinstance(first, RaggedRows):
            columns = [ragged_column(part, name) for part in parts]
            lengths = torch.cat([c.lengths for c in columns])
            offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
            return RaggedRows(torch.cat([c.values for c in columns]), offsets)
        if isinstance(first, Tensor):
            return torch.cat([tensor_column(part, name) for part in parts])
        return np.concatenate([text_column(part, name) for part in parts])

    return dict(parts[0]) if len(parts) == 1 else {name: joined(name, first) for name, first in parts[0].items()}


def move(rows: Mapping[str, Column], device: torch.device) -> Rows:
    """Moves tensors to another device."""

    def moved(column: Column) -> Column:
        if isinstance(column, RaggedRows):
            return RaggedRows(column.values.to(device), column.offsets.to(device))
        return column.to(device) if isinstance(column, Tensor) else column

    return {name: moved(column) for name, column in rows.items()}


def to_batch(rows: Mapping[str, Column]) -> Batch:
    """Makes what a training step sees: float32 embeddings, int64 numbers, text as str.

    Ragged embeddings (the ``sources`` of scenes) are padded with zeros to [rows, longest, width] and come with the mask
    ``valid``; ragged numbers are padded with -1.
    """
    batch: Batch = {}
    for name, column in rows.items():
        if isinstance(column, np.ndarray):
            batch[name] = [text.decode() for text in column.tolist()]
        elif isinstance(column, Tensor):
            batch[name] = _widen(column)
        else:
            batch |= _with_mask(name, *column.padded(_fill(column)))
    return batch


def _fill(column: RaggedRows) -> int:
    return 0 if column.values.is_floating_point() else -1


def _with_mask(name: str, items: Tensor, valid: Tensor) -> Batch:
    return {name: _widen(items)} | ({"valid": valid} if items.is_floating_point() else {})


def _widen(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x.long()
