"""A worker process: runs trial after trial, so that start-up and data are paid for once."""

import contextlib
import dataclasses
import gc
import io
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.running.faults import is_outside
from lightning_ss2a.sweeps.running.messages import (
    Alive,
    Answer,
    CheckTask,
    CommandTask,
    ConfigTask,
    Done,
    Failed,
    Progress,
    Ready,
    RunTask,
    Task,
)

Build = Callable[..., Any]
"""``build_cli(arguments, run=True, callbacks=())`` of the command line."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


ALIVE_SECONDS = 5
"""Time between two words that a run moves on."""


class Line(Protocol):
    """A connection to the sweep."""

    def send(self, obj: Any, /) -> None:
        """Send an object."""

    def recv(self) -> Any:
        """Wait for an object; an EOFError: the other side has closed the connection."""


class Worker:
    """Runs tasks.

    Args:
        build: parses arguments of ``lightning`` and runs them.
        ss2a: runs arguments of ``ss2a``.
        connection: to the sweep.
    """

    def __init__(self, build: Build, ss2a: Callable[[list[str]], Any], connection: Line) -> None:
        self.build, self.ss2a, self.connection = build, ss2a, connection
        self._said_alive = -math.inf

    def serve(self) -> None:
        """Answers task after task, until the sweep closes the connection."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep, which ends its workers
        self.connection.send(Ready())
        while True:
            try:
                task = self.connection.recv()
            except EOFError:
                return
            self.connection.send(self.answer(task))

    def answer(self, task: Task) -> Answer:
        """Does a task; whatever happens is an answer."""
        start = time.perf_counter()
        try:
            with _as_found(), _output_to(getattr(task, "log", None)):
                try:
                    done = self._do(task)
                except BaseException as error:
                    with contextlib.suppress(OSError):  # the disk is full, which may be the error
                        traceback.print_exc()
                    return _failed(error)
            return dataclasses.replace(done, seconds=time.perf_counter() - start, is_spent=_is_spent())
        except OSError as error:  # there can be no log
            return _failed(error)
        finally:
            _free_memory()

    def _do(self, task: Task) -> Done:
        if isinstance(task, RunTask):
            _let_other_ranks_find(task)
            return _run(task, self.build, self._ask, self._alive)
        if isinstance(task, CheckTask):
            return self._check(task)
        if isinstance(task, CommandTask):
            command, *arguments = task.arguments
            self.ss2a(arguments) if command == "ss2a" else self.build(arguments)
            return Done()
        return self._configuration(task)

    def _ask(self, step: int, value: float) -> bool:
        self.connection.send(Progress(step, value))
        return self.connection.recv()

    def _alive(self) -> None:
        now = time.monotonic()
        if now - self._said_alive > ALIVE_SECONDS:
            self._said_alive = now
            self.connection.send(Alive())

    def _check(self, task: CheckTask) -> Done:
        for arguments in task.configurations:
            if task.command == "fit":
                self.build(arguments, run=False)
        smoke = [task.command, *task.configurations[0], "--trainer.fast_dev_run=1"]
        _let_other_ranks_find(RunTask(tuple(smoke), task.log))
        cli = self.build(smoke)
        return Done(sorted(cli.trainer.callback_metrics))

    def _configuration(self, task: ConfigTask) -> Done:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            self.build([*task.arguments, "--print_config"])
        return Done(text.getvalue())


def _run(
    task: RunTask,
    build: Build,
    ask: Callable[[int, float], bool] | None,
    is_alive: Callable[[], None] = lambda: None,
) -> Done:
    from lightning_ss2a.sweeps.running.trial_callback import TrialCallback

    callback = TrialCallback(task.reported, ask, is_alive)
    cli = build(task.arguments, callbacks=[callback])
    logged = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    return Done(logged, pruned=callback.pruned)


def _let_other_ranks_find(task: RunTask) -> None:
    """Leave the task where other ranks look: Lightning starts them by calling this process's command again."""
    if "LOCAL_RANK" not in os.environ:
        file = Path(task.log).with_name("task.json")
        file.write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
        sys.argv[1:] = [str(file)]


def run_other_rank(file: str, build: Build) -> None:
    """Does the same run in a rank above zero of a trial, with no one to report to.

    Args:
        file: JSON of the :class:`RunTask`.
        build: see :class:`Worker`.
    """
    _run(RunTask(**json.loads(Path(file).read_text(encoding="utf-8"))), build, ask=None)


def end_with(lifeline: int) -> None:
    """Ends this process and its children when the other side of a pipe is closed: when the sweep has ended, however.

    Args:
        lifeline: file descriptor to read from; nothing is ever written to it.
    """

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _as_found() -> Iterator[None]:
    """Leave the process as a run found it: a run alone must give the same numbers."""
    import torch

    environment, argv, handlers = dict(os.environ), list(sys.argv), _handlers()
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    dtype = torch.get_default_dtype()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:] = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(True)


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


@contextlib.contextmanager
def _output_to(log: str | None) -> Iterator[None]:
    """Send all output to a file, that of libraries and child processes, too."""
    if log is None:
        yield
        return
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    saved = os.dup(1), os.dup(2)
    with open(log, "ab") as file:
        try:
            _point_output_to(file.fileno(), file.fileno())
            yield
        finally:
            _point_output_to(*saved)
            for descriptor in saved:
                os.close(descriptor)


def _point_output_to(out: int, err: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk takes no more of a log, and the run counts
            stream.flush()
    os.dup2(out, 1)
    os.dup2(err, 2)


def _failed(error: BaseException) -> Failed:
    outside = is_outside(error)
    return Failed(_reason(error), _is_final(error) and not outside, _is_spent(), outside)


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the run ended with status {error.code}"
    # What UTF-8 cannot write, such as the name of a file in another encoding, no table could hold.
    words = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
    text = " ".join(words.split())[:500]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _is_final(error: BaseException) -> bool:
    """Whether a run would fail again in the same way: what depends on its configuration alone."""
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY):
        return False
    return isinstance(error, (ValueError, TypeError, ArithmeticError, LookupError, AttributeError))


def _is_spent() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _free_memory() -> None:
    """Free memory before the next trial, which may need it all."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def serve(arguments: Sequence[str], build: Build, ss2a: Callable[[list[str]], Any]) -> None:
    """Does what a worker process does, or another rank of its run.

    Args:
        arguments: of the process: connection, lifeline, threads and number of workers; or the file of a rank's task.
        build: see :class:`Worker`.
        ss2a: see :class:`Worker`.
    """
    if len(arguments) == 1:
        run_other_rank(arguments[0], build)
        return
    import torch

    from lightning_ss2a.data.loading.shared_cache import use_shared_cache

    connection, lifeline, threads, workers = map(int, arguments)
    end_with(lifeline)
    torch.set_num_threads(threads)
    with use_shared_cache(processes=workers):
        Worker(build, ss2a, Connection(connection)).serve()
