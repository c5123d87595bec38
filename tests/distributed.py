"""Run a function on several gloo processes of this machine."""

import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.processes import SECONDS, fast_context


def run_distributed(function: Callable[..., Any], *args: Any, world_size: int = 2) -> list[Any]:
    """Call ``function(*args)`` on every rank of a fresh gloo group.

    Args:
        function: module-level function; it finds its rank with ``torch.distributed.get_rank()``.
        args: its arguments, pickled to each process.
        world_size: number of processes.

    Returns:
        What the function returned, by rank (anything that ``torch.save`` takes).
    """
    with tempfile.TemporaryDirectory() as folder:
        context = fast_context()
        processes = [
            context.Process(target=_run_rank, args=(rank, world_size, folder, function, args), daemon=True)
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=SECONDS)
            if process.is_alive():
                process.kill()
        errors = [path.read_text() for path in sorted(Path(folder).glob("error_*"))]
        codes = [process.exitcode for process in processes]
        if errors or any(codes):
            raise RuntimeError(f"exit codes {codes}\n" + "\n".join(errors))
        return [torch.load(Path(folder) / f"result_{rank}", weights_only=False) for rank in range(world_size)]


def _run_rank(rank: int, world_size: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=SECONDS)
        )
        torch.save(function(*args), Path(folder) / f"result_{rank}")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        Path(folder, f"error_{rank}").write_text(f"rank {rank}: {traceback.format_exc()}")
        raise
