"""What a sweep and its worker processes say to each other; all of it can be pickled and imports nothing heavy."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunTask:
    """Run ``lightning`` as a part of a trial, and answer with what it logged last.

    Args:
        arguments: of ``lightning``, subcommand first.
        log: file that the run's output goes to.
        reported: metric that is reported at each validation, so that the run can be stopped; None: none.
    """

    arguments: tuple[str, ...]
    log: str
    reported: str | None = None


@dataclass(frozen=True)
class CheckTask:
    """Parse and build each of several configurations, then take one step of training with the first.

    Args:
        command: subcommand of ``lightning``.
        configurations: arguments of each, without the subcommand.
        log: file that the output goes to.
    """

    command: str
    configurations: tuple[tuple[str, ...], ...]
    log: str


@dataclass(frozen=True)
class CommandTask:
    """Run a command, ``lightning`` or ``ss2a``.

    Args:
        arguments: command first.
        log: file that its output goes to.
    """

    arguments: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class ConfigTask:
    """Answer with the whole configuration that arguments of ``lightning`` make.

    Args:
        arguments: subcommand first.
    """

    arguments: tuple[str, ...]


Task = RunTask | CheckTask | CommandTask | ConfigTask


@dataclass(frozen=True)
class Ready:
    """A worker has started, and waits for tasks."""


@dataclass(frozen=True)
class Progress:
    """A validation of a run; the worker waits to hear whether the run is to go on.

    Args:
        step: epochs that are done.
        value: of the metric that is reported.
    """

    step: int
    value: float


@dataclass(frozen=True)
class Alive:
    """A run has done another batch; sent every few seconds at most."""


@dataclass(frozen=True)
class Done:
    """A task is done.

    Args:
        value: of a run, what it logged (dict); of a check, names of what was logged (list); of a configuration, its
            text.
        seconds: that it took.
        pruned: the run was stopped early, as it was told to.
        is_spent: the process has state that it cannot lose, such as a process group, and must not be used again.
    """

    value: Any = None
    seconds: float = 0.0
    pruned: bool = False
    is_spent: bool = False


@dataclass(frozen=True)
class Failed:
    """A task failed.

    Args:
        reason: one line.
        is_final: it would fail again.
        is_spent: see :class:`Done`.
        is_outside: whatever was run here would have failed: the disk is full, say.
    """

    reason: str
    is_final: bool
    is_spent: bool = False
    is_outside: bool = False


Answer = Progress | Alive | Done | Failed
