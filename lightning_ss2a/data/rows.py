"""Rows as tensors: a dict of columns in storage dtype, taken, joined and turned into float32 batches without a loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor | list[str]]


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

    def take(self, index: Tensor) -> "RaggedRows":
        """The rows with these numbers, in this order."""
        starts, lengths = self.offsets[index], (self.offsets[1:] - self.offsets[:-1])[index]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        items = torch.repeat_interleave(starts - offsets[:-1], lengths)
        return RaggedRows(self.values[items + torch.arange(len(items), device=items.device)], offsets)

    def between(self, start: int, stop: int) -> "RaggedRows":
        """Rows start to stop."""
        offsets = self.offsets[start : stop + 1]
        return RaggedRows(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def padded(self, fill: float = 0) -> tuple[Tensor, Tensor]:
        """Items as [rows, longest, ...] and a mask [rows, longest] of those that are real."""
        lengths = self.offsets[1:] - self.offsets[:-1]
        longest = max(1, int(lengths.max())) if len(lengths) else 1
        valid = torch.arange(longest, device=lengths.device) < lengths[:, None]
        items = self.values.new_full((len(lengths), longest, *self.values.shape[1:]), fill)
        items[valid] = self.values
        return items, valid


Column = Tensor | RaggedRows | np.ndarray
Rows = dict[str, Column]


def count(rows: Mapping[str, Column]) -> int:
    """Number of rows."""
    return len(next(iter(rows.values())))


def take(rows: Mapping[str, Column], index: Tensor) -> Rows:
    """The rows with these numbers, in this order; text columns stay on the CPU."""

    def taken(column: Column) -> Column:
        if isinstance(column, RaggedRows):
            return column.take(index)
        return column[index.cpu().numpy()] if isinstance(column, np.ndarray) else column.index_select(0, index)

    return {name: taken(column) for name, column in rows.items()}


def between(rows: Mapping[str, Column], start: int, stop: int) -> Rows:
    """Rows start to stop, without a copy."""
    return {
        name: column.between(start, stop) if isinstance(column, RaggedRows) else column[start:stop]
        for name, column in rows.items()
    }


def gather(rows: Mapping[str, Column], index: Tensor, views: Mapping[str, Tensor]) -> Batch:
    """A training batch: the rows with these numbers; of fields [rows, views, width] the view chosen for each."""
    taken = take({name: column for name, column in rows.items() if name not in views}, index)
    for name, chosen in views.items():
        column = rows[name]
        taken[name] = column.flatten(0, 1).index_select(0, index * column.shape[1] + chosen)
    return to_batch(taken)


def join(parts: Sequence[Mapping[str, Column]]) -> Rows:
    """Rows laid end to end."""

    def joined(columns: Sequence[Column]) -> Column:
        if isinstance(columns[0], RaggedRows):
            lengths = torch.cat([c.offsets[1:] - c.offsets[:-1] for c in columns])
            offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
            return RaggedRows(torch.cat([c.values for c in columns]), offsets)
        return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else torch.cat(list(columns))

    return dict(parts[0]) if len(parts) == 1 else {name: joined([part[name] for part in parts]) for name in parts[0]}


def move(rows: Mapping[str, Column], device: torch.device) -> Rows:
    """Tensors on another device."""

    def moved(column: Column) -> Column:
        if isinstance(column, RaggedRows):
            return RaggedRows(column.values.to(device), column.offsets.to(device))
        return column.to(device) if isinstance(column, Tensor) else column

    return {name: moved(column) for name, column in rows.items()}


def to_batch(rows: Mapping[str, Column]) -> Batch:
    """What a training step sees: float32 embeddings, int64 numbers, text as str.

    Ragged embeddings (the ``sources`` of scenes) are padded with zeros to [rows, longest, width] and come with the mask
    ``valid``; ragged numbers are padded with -1.
    """
    batch: Batch = {}
    for name, column in rows.items():
        if isinstance(column, np.ndarray):
            batch[name] = [text.decode() for text in column.tolist()]
        elif isinstance(column, Tensor):
            batch[name] = _widen(column)
        elif column.values.is_floating_point():
            items, batch["valid"] = column.padded()
            batch[name] = _widen(items)
        else:
            batch[name] = _widen(column.padded(fill=-1)[0])
    return batch


def _widen(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x.long()
