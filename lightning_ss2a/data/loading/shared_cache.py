"""Caches what the runs of one process share: rows, and what is fitted on them. Off unless asked for.

A sweep's worker trains one trial after another on the same data. Within ``with use_shared_cache():`` the first trial
that needs the rows of a split, in memory or on the training device, loads them for all. So it is with the closed-form
baselines that are fitted on the training split. Entries are found by the content of their data sets: data written anew
are read anew. Nobody writes to an entry.
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
class _Entry:
    """A value, where it is and how many bytes it takes there."""

    value: Any
    device: torch.device
    bytes: int


class SharedCache:
    """Values by key; in each memory, the least recently used ones are evicted when a new one needs room.

    Args:
        limit_bytes: most bytes in main memory, and on each training device. None: what residency ``auto`` grants at the
            first use, half of the available main memory and a quarter of a device's free memory, over ``processes``.
        processes: processes of this machine that have such a cache; only asked for without a limit.
    """

    def __init__(self, limit_bytes: int | None = None, processes: int = 1) -> None:
        self._limit_bytes = limit_bytes
        self._processes = processes
        self._limits: dict[torch.device, int] = {}
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # used last at the end
        self._lock = RLock()  # making a value may ask for another

    def get(
        self,
        key: Hashable,
        make: Callable[[], Value],
        bytes_of: Callable[[Value], int],
        device: torch.device = CPU,
        expected_bytes: int = 0,
    ) -> Value:
        """Gives the value of a key, and makes it if it is not cached; one beyond the limit is made, but not cached.

        Args:
            key: all that the value depends on.
            make: makes the value. Not in inference mode: gradients may need it later.
            bytes_of: bytes that a value takes.
            device: where it is.
            expected_bytes: room to make before making it, so that memory never holds what it replaces as well.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key].value
            self._make_room(expected_bytes, device)
            with torch.inference_mode(False):
                value = make()
            size = bytes_of(value)
            if self._make_room(size, device):
                self._entries[key] = _Entry(value, device, size)
            return value

    def bytes_on(self, device: torch.device) -> int:
        """Counts the bytes that are cached there."""
        with self._lock:
            return sum(entry.bytes for entry in self._entries.values() if entry.device == device)

    def _make_room(self, size: int, device: torch.device) -> bool:
        """Evicts the least recently used entries until ``size`` bytes more fit; tells whether they ever can."""
        limit = self._limit(device)
        if size > limit:
            return False
        there = [key for key, entry in self._entries.items() if entry.device == device]
        excess = self.bytes_on(device) + size - limit
        for key in there:
            if excess <= 0:
                break
            excess -= self._entries.pop(key).bytes
        return True

    def _limit(self, device: torch.device) -> int:
        if self._limit_bytes is not None:
            return self._limit_bytes
        if device not in self._limits:
            self._limits[device] = granted_bytes(device) // self._processes
        return self._limits[device]


_cache: SharedCache | None = None


@contextmanager
def use_shared_cache(limit_bytes: int | None = None, processes: int = 1) -> Iterator[SharedCache]:
    """Lets runs of this process share the data that they load; at the end of the context the cache is dropped.

    Args:
        limit_bytes: most bytes in main memory, and on each training device, of this process; None: see
            :class:`SharedCache`.
        processes: processes of this machine that have such a cache, such as the workers of a sweep.

    Raises:
        InputError: a limit below 0, or no process.
    """
    global _cache
    if limit_bytes is not None and limit_bytes < 0:
        raise InputError(f"limit_bytes is {limit_bytes}, needs at least 0")
    if processes < 1:
        raise InputError(f"processes is {processes}, needs at least 1")
    before, _cache = _cache, SharedCache(limit_bytes, processes)
    try:
        yield _cache
    finally:
        _cache = before


def shared_cache() -> SharedCache | None:
    """Gives the cache of this process; None: nothing is cached."""
    return _cache
