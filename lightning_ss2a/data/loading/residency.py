"""Chooses where rows stay while they are used: on the training device, in main memory, or in their files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

Residency = Literal["auto", "device", "memory", "stream"]
Place = Literal["device", "memory", "stream"]

CPU = torch.device("cpu")
DEVICE_SHARE = 0.25
MEMORY_SHARE = 0.5


def choose_residency(
    wanted: Residency,
    size: int,
    device: torch.device,
    local_ranks: int,
    cached_bytes: Callable[[torch.device], int] = lambda _: 0,
) -> tuple[Place, str]:
    """Chooses where data sets of ``size`` bytes go; also gives a line that says why.

    ``auto`` takes the first that holds:

    - ``device``: the device is a CUDA GPU and the rows take at most 25 % of its free memory;
    - ``memory``: the rows, once for each process of this machine, take at most 50 % of its available memory (page cache
      counts as available);
    - ``stream`` otherwise.

    Args:
        wanted: a place, or ``auto``.
        size: bytes of all rows.
        device: where batches go.
        local_ranks: processes on this machine; each holds its own copy in memory.
        cached_bytes: bytes that each process has cached for runs on a device; they are used again or evicted, and so
            count as free.
    """
    what = f"data: {_readable(size)}"
    if wanted != "auto":
        return wanted, f"{what}, residency {wanted} as asked"
    free = _free_memory(device) + cached_bytes(device) if device.type == "cuda" else 0
    if size <= DEVICE_SHARE * free:
        return "device", f"{what}, residency device (at most 25 % of {_readable(free)} free on {device})"
    available = available_memory() + cached_bytes(CPU) * local_ranks
    need = f"{_readable(size)} x {local_ranks} processes"
    if size * local_ranks <= MEMORY_SHARE * available:
        return "memory", f"{what}, residency memory ({need}, at most 50 % of {_readable(available)} available)"
    return "stream", f"{what}, residency stream ({need}, more than 50 % of {_readable(available)} available)"


def granted_bytes(device: torch.device) -> int:
    """Tells how many bytes of main memory (``cpu``) or a CUDA device ``auto`` grants to the rows of one process."""
    if device.type == "cpu":
        return int(MEMORY_SHARE * available_memory())
    return int(DEVICE_SHARE * _free_memory(device))


def _free_memory(device: torch.device) -> int:
    """Tells the free bytes of a CUDA device."""
    return torch.cuda.mem_get_info(device)[0]


def available_memory() -> int:
    """Tells how many bytes of main memory programs can still take, within the limit of this container if any."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = [line.split() for line in meminfo.read_text().splitlines()]
        limits += [int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"]
    cgroup = Path("/sys/fs/cgroup")
    if (cgroup / "memory.max").exists():
        limit = (cgroup / "memory.max").read_text().strip()
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        if limit != "max":
            limits.append(int(limit) - int(statistics.get("anon", 0)))
    if not limits:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(0, min(limits))


def _readable(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
