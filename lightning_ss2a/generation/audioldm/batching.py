"""Batches that fit into memory: measured before, and halved where that was not enough."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lightning_ss2a.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

SHARE_OF_MEMORY = 0.8
"""Of what is free, that a batch may take."""
MOST_AT_ONCE, AT_ONCE_ON_CPU = 64, 4
"""Sounds in a batch, where nothing is said; more do not make a GPU faster."""


def in_batches(
    run: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], size: int, part: str
) -> tuple[list[Result], int]:
    """Runs items in batches, which are halved where a GPU's memory runs out.

    Args:
        run: gives a result for each item of a batch.
        items: all of them.
        size: of a batch.
        part: who runs, for messages.

    Returns:
        The results, and the size that fitted.

    Raises:
        InputError: memory does not suffice for one item.
    """
    done: list[Result] = []
    while len(done) < len(items):
        batch = items[len(done) : len(done) + size]
        results = _unless_out_of_memory(run, batch)
        if results is not None:
            done += results
        elif len(batch) == 1:
            raise InputError(f"{part}: the GPU's memory does not suffice for one sound; take a shorter one")
        else:
            size = len(batch) // 2
    return done, size


def fitting_batch(run_one: Callable[[], object], device: torch.device) -> int:
    """Tells how many items fit into a GPU's free memory at once, by what a single one takes at most.

    Args:
        run_one: runs one item; what it loads at its first run and keeps does not count.
        device: where it runs; on a CPU nothing is measured.
    """
    if device.type != "cuda":
        return AT_ONCE_ON_CPU
    run_one()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run_one()
    taken = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST_AT_ONCE, int(SHARE_OF_MEMORY * free / taken)))


def _unless_out_of_memory(run: Callable[[Sequence[Item]], list[Result]], batch: Sequence[Item]) -> list[Result] | None:
    """Gives the results of a batch; None where memory ran out, once what the batch held is free again."""
    try:
        return run(batch)
    except torch.OutOfMemoryError:
        pass  # its traceback holds the batch's tensors until here
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
