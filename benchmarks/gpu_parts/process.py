"""A function in a process of its own, with a deadline; its figures are kept as they come."""

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

Figures = dict[str, Any]

_EXIT_SECONDS = 5
"""A process that is done may take so long to clean up."""


class Report:
    """Takes figures as they are measured: prints them at once, and sends them to the process that waits for them."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self, **figures: Any) -> None:
        """Report figures by name; floats to four digits."""
        if not figures:
            return
        figures = {name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in figures.items()}
        print("  " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
        self._pipe.send(figures)


@dataclass
class Outcome:
    """What came of a part.

    Attributes:
        figures: what it reported, also if it did not get to its end.
        seconds: from its start to its end.
        error: why it has no end of its own; None: it has.
    """

    figures: Figures = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None


def run_apart(context: BaseContext, function: Callable, arguments: Sequence[Any], deadline: float) -> Outcome:
    """Call ``function(*arguments, report)`` in a new process, and kill that with all its children in the end.

    Args:
        context: of ``multiprocessing``: how processes start.
        function: of a module.
        arguments: can be pickled.
        deadline: seconds that it may take, its start included.
    """
    outcome, start = Outcome(), time.monotonic()
    reader, writer = context.Pipe(duplex=False)
    passed = (writer, function, arguments)
    process = context.Process(target=_child, args=passed)  # type: ignore[attr-defined]  # subclasses have it
    process.start()
    writer.close()
    try:
        while True:
            if not reader.poll(max(0.0, start + deadline - time.monotonic())):
                outcome.error = f"timed out after {deadline:.0f} s"
                break
            message = reader.recv()
            if message is None:
                process.join(_EXIT_SECONDS)
                break
            if isinstance(message, str):
                outcome.error = message
                break
            outcome.figures |= message
    except EOFError:
        process.join(_EXIT_SECONDS)
        outcome.error = f"ended with exit status {process.exitcode}"
    finally:
        _end(process)
    outcome.seconds = time.monotonic() - start
    return outcome


def _end(process: BaseProcess) -> None:
    """Kill what is left of a process and of the processes that it started."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # all gone, or not yet a group of its own
        process.kill()
    process.join()


def _child(pipe: Connection, function: Callable, arguments: Sequence[Any]) -> None:
    os.setpgrp()  # so that _end reaches compilers, too
    warnings.filterwarnings("ignore")
    try:
        function(*arguments, Report(pipe))
        pipe.send(None)
    except BaseException as error:  # whatever ends a part must not end the others
        traceback.print_exc()
        text = str(error).strip().splitlines()
        pipe.send(f"{type(error).__name__}: {text[0] if text else ''}")
