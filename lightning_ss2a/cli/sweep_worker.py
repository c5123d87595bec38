"""``python -m lightning_ss2a.cli.sweep_worker``: a process that ``ss2a sweep`` starts, not for people."""

import sys
from multiprocessing.connection import Connection

from lightning_ss2a.cli.lightning import build_cli, quiet
from lightning_ss2a.cli.ss2a import run
from lightning_ss2a.sweeps.worker import Worker, end_with, parse_worker_arguments, prepare_process, run_other_rank


def main() -> None:
    """Serve a sweep, or be another rank of one of its runs."""
    quiet()
    given = parse_worker_arguments(sys.argv[1:])
    if isinstance(given, str):
        run_other_rank(given, build_cli, run)
        return
    connection, lifeline, threads = given
    end_with(lifeline)
    prepare_process(threads)
    Worker(build_cli, run, Connection(connection)).serve()


if __name__ == "__main__":
    main()
