"""Streams batches from shards as training goes on: windows of rows in a vectorised shuffle."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_ss2a.data.loading.batch_order import StreamPlan, rank_slice, view_choices
from lightning_ss2a.data.loading.in_memory import evaluation_batch
from lightning_ss2a.data.loading.loaders import ahead
from lightning_ss2a.data.loading.row_selection import selection_identity
from lightning_ss2a.data.loading.shard_rows import ShardRows
from lightning_ss2a.data.loading.tensors import Batch, Rows, gather, host_lengths, longest_rows
from lightning_ss2a.errors import InputError

FEWER_WORKERS = "where memory ends, set data.num_workers or data.shuffle_rows lower"


class StreamRows:
    """Rows of some splits, read in order from their shards; what evaluation reads where memory does not hold them.

    Args:
        files: the rows.
        every_view: read all views of each instead of their mean.
    """

    def __init__(self, files: ShardRows, every_view: bool = False) -> None:
        self.files = files
        self.every_view = every_view

    def __len__(self) -> int:
        return self.files.total

    def read(self, start: int, stop: int) -> Batch:
        """Makes an evaluation batch: rows start to stop of those that take part, the mean over all views."""
        rows = self.files.read(np.array([[start, stop]]))
        index = self.files.row_numbers(np.arange(start, stop))
        return evaluation_batch(rows, {} if self.every_view else self.files.views, torch.from_numpy(index))

    def select(self, numbers: np.ndarray) -> "StreamRows":
        """Selects the rows with these numbers, int64 [rows that take part], increasing."""
        return StreamRows(self.files.select(numbers), self.every_view)

    def with_every_view(self) -> "StreamRows":
        """Gives the same rows, all views of each instead of their mean."""
        return StreamRows(self.files, every_view=True)


@dataclass(frozen=True)
class Window:
    """A rank's rows of a window as read, and what makes batches of them.

    Attributes:
        rows: the rows.
        order: positions of the rows of each batch, int64 [batches, rows of a batch].
        views: the view that each of them shows, int64 [batches, rows of a batch], of fields that have several.
    """

    rows: Rows
    order: Tensor
    views: dict[str, Tensor]

    def batches(self, first: int) -> Iterator[Batch]:
        """Makes batches from the first on."""
        longest = longest_rows(host_lengths(self.rows), self.order.numpy())
        for b in range(first, len(self.order)):
            yield gather(self.rows, self.order[b], {name: chosen[b] for name, chosen in self.views.items()}, longest[b])


class Windows(Dataset):
    """All windows of all epochs, read here or in a worker process.

    Args:
        files: the rows.
        plan: the order of the places of rows.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, files: ShardRows, plan: StreamPlan, rank: int, world_size: int) -> None:
        self.files = files
        self.plan = plan
        self.rank = rank
        self.world_size = world_size
        self._sequence: tuple[int, np.ndarray] | None = None

    def __getitem__(self, item: tuple[int, int]) -> Window:
        """Reads the window (epoch, number)."""
        epoch, window = item
        if self._sequence is None or self._sequence[0] != epoch:
            self._sequence = epoch, self.plan.sequence(epoch)
        ranges = self.plan.window_rows(self._sequence[1], window, self.rank, self.world_size)
        rows = self.files.read(ranges)
        places = np.concatenate([np.arange(a, b) for a, b in ranges])
        rows["index"] = torch.from_numpy(self.files.row_numbers(places))
        order = torch.from_numpy(self.plan.window_order(epoch, window, self.rank, self.world_size))
        return Window(rows, order, {name: self._view_choices(name, epoch, window) for name in self.files.views})

    def _view_choices(self, name: str, epoch: int, window: int) -> Tensor:
        batches, views, plan = self.plan.window_batches(window), self.files.views, self.plan
        chosen = view_choices(
            plan.seed,
            epoch,
            views[name],
            sorted(views).index(name),
            start=batches.start,
            stop=batches.stop,
            batch_size=plan.batch_size,
        )
        return torch.from_numpy(chosen[:, rank_slice(plan.batch_size, self.rank, self.world_size)])


class StreamSource:
    """Training batches cut from windows that are read ahead.

    Args:
        files: the rows.
        plan: the order of the places of rows.
        rank: this process.
        world_size: number of processes.
        num_workers: worker processes that read windows; 0: one thread.
        pin: page-locked batches, for asynchronous copies to a GPU.
    """

    def __init__(
        self,
        files: ShardRows,
        plan: StreamPlan,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin: bool = False,
    ) -> None:
        self.plan = plan
        self.pin = pin
        self._windows = Windows(files, plan, rank, world_size)
        self.num_workers = num_workers
        self._selection = selection_identity(files.numbers, files.all_rows)

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return self.plan.batches

    @property
    def identity(self) -> dict[str, Any]:
        """What batch numbers depend on."""
        own = {"residency": "stream", "shuffle_rows": self.plan.shuffle_rows}
        return {**own, **self.plan.identity, **self._selection}

    def iterate(self, epoch: int, first: int) -> Iterator[Batch]:
        """Makes batches ``first`` and on of an epoch; windows before are not read."""
        if first >= self.batches:
            return
        window = self.plan.window_of(first)
        skipped = first - self.plan.window_batches(window).start
        for part in self._read([(epoch, w) for w in range(window, self.plan.windows)]):
            for batch in part.batches(skipped):
                yield {name: x.pin_memory() for name, x in batch.items()} if self.pin else batch
            skipped = 0

    def _read(self, windows: list[tuple[int, int]]) -> Iterator[Window]:
        """Reads windows ahead, in order: window j by worker j modulo their number."""
        if not self.num_workers:
            return ahead(self._windows.__getitem__, windows)
        return self._read_by_workers(windows)

    def _read_by_workers(self, windows: list[tuple[int, int]]) -> Iterator[Window]:
        workers = DataLoader(
            _WindowsOrErrors(self._windows),
            batch_size=None,
            sampler=windows,
            num_workers=self.num_workers,
            collate_fn=_as_is,  # without a batch size, it is given single windows
            prefetch_factor=1,
        )
        for window in _unless_lost(workers):
            if isinstance(window, InputError):
                raise window
            yield window


def _unless_lost(windows: Iterable[Window | InputError]) -> Iterator[Window | InputError]:
    """Says in one line that a worker was killed; what torch raises depends on what it was sending meanwhile."""
    try:
        yield from windows
    except (RuntimeError, OSError, EOFError) as error:
        if "Original Traceback" in str(error):  # raised in a worker, not by its loss
            raise
        raise InputError(f"a process that reads ahead was killed ({error}); {FEWER_WORKERS}") from error


class _WindowsOrErrors(Dataset):
    """Errors of input as results: raised in a worker, they would come with the worker's traceback as their message."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __getitem__(self, item: tuple[int, int]) -> Window | InputError:
        try:
            return self.windows[item]
        except InputError as error:
            return error


def _as_is(window: Any) -> Any:
    return window
