"""Which process runs a trial, and whether it still does."""

import os
import socket
import time
from pathlib import Path

LOST_AFTER_SECONDS = 600
"""A trial of another machine counts as lost when its process has not been heard of for so long."""

HEARTBEAT_SECONDS = 60


def this_owner() -> str:
    """Names this process: machine, process, and when it began (processes' numbers are given again)."""
    return f"{socket.gethostname()} {os.getpid()} {_began(os.getpid())}"


def is_lost(owner: str, heartbeat: float) -> bool:
    """Tells whether the process that runs a trial is gone.

    Args:
        owner: see :func:`this_owner`.
        heartbeat: when it was last heard of, seconds since the epoch.
    """
    host, process, began = owner.split(" ", 2)
    if host != socket.gethostname():
        return time.time() - heartbeat > LOST_AFTER_SECONDS
    return _began(int(process)) != began


def available_cores() -> int:
    """Counts the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of_a_worker(workers: int) -> int:
    """Divides the cores among workers, unless the variable OMP_NUM_THREADS says how many threads each has."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else max(1, available_cores() // workers)


def _began(process: int) -> str:
    """Finds when a process began, as a text that no other of this machine has; empty: there is no such process."""
    try:
        # The name of the program, in parentheses, may hold blanks; field 22 is the time since the machine's start.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return "" if fields[0] == "Z" else f"{boot}/{fields[19]}"
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except (OSError, IndexError):
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
