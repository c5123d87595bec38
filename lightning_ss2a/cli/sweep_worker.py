"""``python -m lightning_ss2a.cli.sweep_worker``: a process that ``ss2a sweep`` starts, not for people."""

import sys

from lightning_ss2a.cli.lightning import build_cli, quiet
from lightning_ss2a.cli.ss2a import run
from lightning_ss2a.sweeps.running.worker import serve

if __name__ == "__main__":
    quiet()
    serve(sys.argv[1:], build_cli, run)
