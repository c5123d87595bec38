"""Which process runs a trial, and whether it still does.

An owner gives signs of life: it changes a note in the storage again and again. Whoever watches counts the time between
two signs by a clock of its own that never goes back, so that nobody's wall clock matters. Of a process on the same
machine one need not wait: the system knows whether it is there. The same machine is the same boot and the same
namespace of process numbers; names of machines say nothing, since containers and clones share them.
"""

import functools
import os
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

BEAT_SECONDS = 30
"""Time between two signs of life."""

LOST_AFTER_SECONDS = 300
"""A trial is lost when whoever watches has seen no sign of its owner for so long."""


def this_owner() -> str:
    """Names this process: machine (for people), boot and namespace, number, and when it began (numbers come again)."""
    return f"{socket.gethostname()} {_place()} {os.getpid()} {_began(os.getpid())}"


def is_there(owner: str) -> bool | None:
    """Tells whether a process is there; None: it is of another machine, or the system hides it.

    Args:
        owner: see :func:`this_owner`.
    """
    place, process, began = ["", "", *owner.split(" ")][-3:]
    if place != _place() or not process.isdigit():
        return None
    found = _began(int(process))
    return None if not found and _is_hidden(int(process)) else found == began


class Watch:
    """The signs of life that this process has seen, by trial.

    Args:
        clock: seconds of this machine; never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: dict[int, tuple[object, float]] = {}
        self._moved: set[int] = set()

    def silence(self, trial: int, sign: object) -> float:
        """Takes the newest sign of a trial's owner; tells how many seconds ago it was new to this process.

        Args:
            trial: its number.
            sign: another than before, if the owner has given one since.
        """
        now = self._clock()
        before, when = self._last.setdefault(trial, (sign, now))
        if before != sign:
            self._moved.add(trial)
            self._last[trial] = sign, now
            return 0.0
        return now - when

    def knows(self, trial: int) -> bool:
        """Tells whether a trial's owner was seen to give a sign."""
        return trial in self._moved


def available_cores() -> int:
    """Counts the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of_a_worker(workers: int) -> int:
    """Divides the cores among workers, unless the variable OMP_NUM_THREADS says how many threads each has."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else max(1, available_cores() // workers)


@functools.cache
def _place() -> str:
    """Names this boot of the machine and the namespace of its process numbers; where nobody tells, this process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return uuid.uuid4().hex


def _began(process: int) -> str:
    """Finds when a process began, in ticks since the machine's start; empty: none is to be seen."""
    try:
        # The name of the program, in parentheses, may hold blanks; field 22 is the time since the machine's start.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _is_hidden(process: int) -> bool:
    """Tells whether a process is another user's: a system may show each his own only."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        pass
    return False
