"""What many runs of one process share: rows, and what is fitted on them, made once. Off unless asked for.

A sweep's worker trains one trial after another on the same data. Within ``with keep_data():`` the rows of splits that
stay in memory, or on the training device, are loaded by the first trial that needs them, and used by all. So are the
closed-form floors of the training split. What is kept is found by the content of its data sets: data written anew are
read anew. Nobody writes to it.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any, TypeVar

import torch

from lightning_ss2a.data.loading.residency import CPU, granted_bytes
from lightning_ss2a.errors import InputError

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Kept:
    """A value, where it is and how many bytes it takes there."""

    value: Any
    device: torch.device
    bytes: int


class DataKeeper:
    """Values by key; of those in one memory, the ones not used for longest go first when it gets too much.

    Args:
        limit_bytes: most bytes in main memory, and on each training device. None: what residency ``auto`` grants at the
            first use, half of the available main memory and a quarter of a device's free memory, over ``processes``.
        processes: processes of this machine that keep data; only asked for without a limit.
    """

    def __init__(self, limit_bytes: int | None = None, processes: int = 1) -> None:
        self._limit_bytes = limit_bytes
        self._processes = processes
        self._limits: dict[torch.device, int] = {}
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()  # used last at the end
        self._lock = RLock()  # making a value may ask for another

    def get(
        self,
        key: Hashable,
        make: Callable[[], Value],
        bytes_of: Callable[[Value], int],
        device: torch.device = CPU,
        expected_bytes: int = 0,
    ) -> Value:
        """The value of a key, made if it is not kept; one larger than the limit is made, but not kept.

        Args:
            key: all that the value depends on.
            make: makes the value. Not in inference mode: gradients may need it later.
            bytes_of: bytes that a value takes.
            device: where it is.
            expected_bytes: room to make before making it, so that memory never holds what it replaces as well.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].value
            self._make_room(expected_bytes, device)
            with torch.inference_mode(False):
                value = make()
            size = bytes_of(value)
            if self._make_room(size, device):
                self._kept[key] = _Kept(value, device, size)
            return value

    def bytes_on(self, device: torch.device) -> int:
        """Bytes kept there."""
        with self._lock:
            return sum(kept.bytes for kept in self._kept.values() if kept.device == device)

    def _make_room(self, size: int, device: torch.device) -> bool:
        """Forget what was not used for longest until ``size`` bytes more fit; whether they ever can."""
        limit = self._limit(device)
        if size > limit:
            return False
        there = [key for key, kept in self._kept.items() if kept.device == device]
        excess = self.bytes_on(device) + size - limit
        for key in there:
            if excess <= 0:
                break
            excess -= self._kept.pop(key).bytes
        return True

    def _limit(self, device: torch.device) -> int:
        if self._limit_bytes is not None:
            return self._limit_bytes
        if device not in self._limits:
            self._limits[device] = granted_bytes(device) // self._processes
        return self._limits[device]


_keeper: DataKeeper | None = None


@contextmanager
def keep_data(limit_bytes: int | None = None, processes: int = 1) -> Iterator[DataKeeper]:
    """Within this context, runs of this process share the data that they load; at its end all of it is forgotten.

    Args:
        limit_bytes: most bytes in main memory, and on each training device, of this process; None: see
            :class:`DataKeeper`.
        processes: processes of this machine that keep data, such as the workers of a sweep.

    Raises:
        InputError: a limit below 0, or no process.
    """
    global _keeper
    if limit_bytes is not None and limit_bytes < 0:
        raise InputError(f"limit_bytes is {limit_bytes}, needs at least 0")
    if processes < 1:
        raise InputError(f"processes is {processes}, needs at least 1")
    before, _keeper = _keeper, DataKeeper(limit_bytes, processes)
    try:
        yield _keeper
    finally:
        _keeper = before


def data_keeper() -> DataKeeper | None:
    """What keeps the data of this process; None: nothing is kept."""
    return _keeper
