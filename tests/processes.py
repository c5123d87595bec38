"""Processes for tests that start in a fraction of a second."""

import os
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

COMMANDS = {"lightning": "lightning_ss2a.cli.lightning", "ss2a": "lightning_ss2a.cli.ss2a"}
SECONDS = 240


def fast_context() -> ForkServerContext:
    """Where new processes come from: one that has imported what takes seconds, and does nothing but fork.

    Like processes that are spawned they have none of this one's threads, signal handlers or open files.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "lightning.pytorch", "torchmetrics"])
    return context


def status_of(function: Callable[..., None], *arguments: Any) -> int:
    """How a process ends that calls a module's function: 0, or minus the number of the signal that ended it."""
    process = fast_context().Process(target=function, args=arguments)
    process.start()
    process.join(SECONDS)
    status = process.exitcode
    process.kill()
    assert status is not None, f"{function.__name__} has not ended after {SECONDS} seconds"
    return status


def run_command(line: str, folder: Path, environment: dict[str, str], status: int = 0) -> str:
    """What a line with one of the package's commands prints, run in a folder by a process of its own.

    Args:
        line: as it would be typed.
        folder: where it is run; what it prints is kept there meanwhile.
        environment: variables of the process.
        status: with which it has to end.
    """
    output = folder / ".printed"
    found = status_of(call_command, shlex.split(line), folder, environment, output, output)
    printed = output.read_text()
    output.unlink()
    assert found == status, f"{line}: status {found}\n{printed}"
    assert "Traceback" not in printed
    return printed


def call_command(words: list[str], folder: Path, environment: dict[str, str], output: Path, errors: Path) -> None:
    """Runs a command of ours in this process, with its output and its errors in files, which may be the same."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((sys.stdout, output), (sys.stderr, errors)):
        with open(path, "ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = words
    import_module(COMMANDS[words[0]]).main()


def write_imported(module: str, output: Path) -> None:
    """Writes the names of what a module imports beyond torch and Lightning, which this process begins with."""
    before = set(sys.modules)
    import_module(module)
    output.write_text("\n".join(set(sys.modules) - before))
