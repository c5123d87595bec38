"""Loads batches for Lightning; loaders know their length, their rank's share and where to go on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol, TypeVar

from lightning_ss2a.data.loading.row_selection import SELECTED_ROWS
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError

Result = TypeVar("Result")

SPLIT = "split "
"""Before the name of a split in a checkpoint."""


class TrainingSource(Protocol):
    """Batches of any epoch from any batch on, this rank's share of each."""

    @property
    def batches(self) -> int:
        """Batches an epoch, the same in each."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the meaning of "batch 17 of epoch 3" depends on."""

    def iterate(self, epoch: int, first: int) -> Iterator[Batch]:
        """Makes batches ``first`` and on of an epoch; nothing before is read."""


class EvaluationSource(Protocol):
    """Rows in their order."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Batch:
        """Makes a batch of rows start to stop, the views of each averaged."""


class TrainingLoader:
    """Training batches, each rank its share; stateful in the sense of ``state_dict``/``load_state_dict``.

    In Lightning it asks the trainer for the epoch and the batches done when it starts an epoch, so that prefetching
    never makes a resumed run skip or repeat a batch. In a plain loop it counts by itself.

    Args:
        source: where batches come from.
        position: (epoch, batches done) of a running trainer; returns None where no trainer runs.
        splits: what tells the rows of each split that is trained on from others, by its name for messages.
    """

    def __init__(
        self,
        source: TrainingSource,
        position: Callable[[], tuple[int, int] | None] = lambda: None,
        splits: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self._splits = dict(splits or {})
        self._position = position
        self._epoch = 0
        self._done = 0
        self._resume_at = 0

    def __len__(self) -> int:
        return self.source.batches

    def __iter__(self) -> Iterator[Batch]:
        # A generator: the trainer makes iterators before it has restored its counters, and asks for batches after.
        self._epoch, self._done = self._position() or (self._epoch, self._resume_at)
        self._resume_at = 0
        for batch in self.source.iterate(self._epoch, self._done):
            self._done += 1
            yield batch
        self._epoch, self._done = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Tells the epoch and the batches handed out, and what they are counted in."""
        finished = self._done == len(self)
        epoch, batch = (self._epoch + 1, 0) if finished else (self._epoch, self._done)
        return {"epoch": epoch, "batch": batch, **self._splits, **self.source.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the next batch after those of a state.

        Raises:
            InputError: the state is from the middle of an epoch of other rows, or cut into batches in another way.
        """
        identity = {**self._splits, **self.source.identity}
        # What the state was counted in besides counts as well. First what changes other numbers too: data, a selection.
        for name in [*self._splits, SELECTED_ROWS, *identity, *(state.keys() - identity.keys() - {"epoch", "batch"})]:
            then, now = state.get(name), identity.get(name)
            if state["batch"] and then != now:
                special = {SELECTED_ROWS: "callbacks that select rows (EMATeacher, PairFilter)"}
                same = special.get(name, "data sets and fold" if name.startswith(SPLIT) else "value")
                raise InputError(
                    f"the checkpoint is from batch {state['batch']} of an epoch with data {name}={then}; "
                    f"now it is {now}: resume with the same {same}, or from a checkpoint taken at the end of an epoch"
                )
        self._epoch, self._done = state["epoch"], state["batch"]
        self._resume_at = state["batch"]


class EvaluationLoader:
    """Every row exactly once, in order; batch b goes to rank b modulo the number of ranks.

    Batches are the same as in one process. Each rank gets as many: where there is none left, one without rows.

    Args:
        source: where rows come from.
        batch_size: rows of a batch, on one rank.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, source: EvaluationSource, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.source = source
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        batches = -(-len(self.source) // self.batch_size)
        return -(-batches // self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        return ahead(self._read, range(self.rank, len(self) * self.world_size, self.world_size))

    def _read(self, batch: int) -> Batch:
        rows = len(self.source)
        start = min(batch * self.batch_size, rows)
        return self.source.read(start, min(start + self.batch_size, rows))


def ahead(function: Callable[[Any], Result], items: Iterable[Any], threads: int = 1) -> Iterator[Result]:
    """Maps like ``map``, with threads that compute the next results, one each, while one is in use.

    After an error no further item is begun, and the threads end. If the caller stops early, they finish the results
    that they are at, and end.
    """
    # An iterator that was left waits for no thread: the garbage collector may close it in any thread, also in one that
    # is just starting; that one holds a lock of ``threading`` which waiting for another thread takes as well, and would
    # wait forever. A pool to which nobody refers any more ends its threads by itself; an error refers to it.
    pool, items = ThreadPoolExecutor(threads), iter(items)
    pending = deque(pool.submit(function, item) for item in islice(items, threads))
    try:
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    except (Exception, KeyboardInterrupt):
        pool.shutdown(wait=False, cancel_futures=True)
        raise
