"""Worker processes, started when they are needed and replaced when they die."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.running.messages import Alive, Answer, Done, Failed, Progress, Ready, Task

WORKER_MODULE = "lightning_ss2a.cli.sweep_worker"
MOST_STARTS = 3
"""A worker that dies so often before it is ready cannot work here."""

ENDING_SECONDS = 10
"""How long a process may take to end."""

_USUAL_CAUSES = {
    f"signal {int(signal.SIGKILL)}": ", as the system does where memory ends",
    f"signal {int(signal.SIGBUS)}": ", as the system does where a disk or /dev/shm is full",
}

WAIT_SECONDS = 0.5
"""How long to wait for answers before looking at other things."""


class Pool(Protocol):
    """Workers by number, each with at most one task."""

    @property
    def idle(self) -> list[int]:
        """Workers without a task."""

    def give(self, number: int, task: Task) -> None:
        """Gives a task to an idle worker."""

    def reply(self, number: int, stop: bool) -> None:
        """Answers a worker's :class:`Progress`."""

    def wait(self, seconds: float) -> list[tuple[int, Answer]]:
        """Collects the answers that come within this time."""

    def call(self, task: Task) -> Done:
        """Has one task done, while no other is."""

    def end(self, number: int) -> None:
        """Ends a worker with its task; another takes its place."""

    def stop(self) -> None:
        """Ends all workers."""


@dataclass
class WorkerProcess:
    """A process that answers tasks, in a session of its own: Ctrl-C is not for it.

    Args:
        process: the process.
        connection: to it.
        lifeline: closed when this process ends, which ends the worker.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    lifeline: int

    @classmethod
    def start(cls, module: str, threads: int, workers: int, gpus: Sequence[str], log: Path) -> "WorkerProcess":
        """Starts a worker.

        Args:
            module: to run.
            threads: CPU threads.
            workers: that share this machine's memory.
            gpus: names of the GPUs that it sees, as CUDA_VISIBLE_DEVICES has them; empty: those that this process sees.
            log: file for what it prints outside of tasks.
        """
        ours, theirs = multiprocessing.Pipe()
        read_end, write_end = os.pipe()
        # In a Slurm job this name tells Lightning that a trial is not one of the job's tasks, nor requeues the job.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "SLURM_JOB_NAME": "interactive"}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(read_end), str(threads), str(workers)],
                pass_fds=[theirs.fileno(), read_end],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        theirs.close()
        os.close(read_end)
        return cls(process, ours, write_end)

    def stop(self, has_died: bool = False) -> str:
        """Ends it and its children, and says how it had ended, if it had.

        Args:
            has_died: it is ending by itself.
        """
        # One that has died has closed the connection, and may still be ending: its own status is the true one.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING_SECONDS if has_died else 0)
        # Its process group may outlive it: other ranks of its run.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a dead network disk cannot be killed
            self.process.wait(ENDING_SECONDS)
        status = self.process.returncode
        self.connection.close()
        os.close(self.lifeline)
        return f"signal {-status}" if status is not None and status < 0 else f"status {status}"


class WorkerPool:
    """Worker processes by number, each with at most one task.

    Args:
        workers: how many.
        threads: CPU threads of each.
        gpus_per_worker: GPUs that each sees; 0: all.
        logs: folder for what workers print outside of tasks.
        module: that a worker runs.

    Raises:
        InputError: this process sees fewer GPUs than the workers need.
    """

    def __init__(
        self, workers: int, threads: int, gpus_per_worker: int, logs: Path, module: str = WORKER_MODULE
    ) -> None:
        self.numbers = range(workers)
        self._threads, self._gpus, self._logs, self._module = threads, gpus_per_worker, logs, module
        self._workers: dict[int, WorkerProcess] = {}
        self._busy: set[int] = set()
        self._starts_in_vain = 0
        needed = workers * gpus_per_worker
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._visible = list(map(str, range(needed))) if visible is None else [x for x in visible.split(",") if x]
        if len(self._visible) < needed:
            raise InputError(
                f"workers: {workers} with {gpus_per_worker} GPUs each need {needed}, CUDA_VISIBLE_DEVICES names "
                f"{len(self._visible)}"
            )

    @property
    def idle(self) -> list[int]:
        """Workers without a task."""
        return [number for number in self.numbers if number not in self._busy]

    def give(self, number: int, task: Task) -> None:
        """Gives a task to an idle worker."""
        if number not in self._workers:
            self._start(number)
        self._busy.add(number)
        with contextlib.suppress(OSError):  # it has died; wait() will say so
            self._workers[number].connection.send(task)

    def reply(self, number: int, stop: bool) -> None:
        """Answers a worker's :class:`Progress`."""
        with contextlib.suppress(OSError):
            self._workers[number].connection.send(stop)

    def wait(self, seconds: float) -> list[tuple[int, Answer]]:
        """Collects the answers that come within this time; a worker that died answers that its task failed.

        Raises:
            InputError: workers cannot be started.
        """
        busy = {number: self._workers[number].connection for number in sorted(self._busy)}
        ready = wait(list(busy.values()), seconds)
        answers: list[tuple[int, Answer]] = []
        for number, connection in busy.items():
            if connection not in ready:
                continue
            try:
                answer: Answer | Ready = connection.recv()
            except (EOFError, OSError):
                answer = Failed(self._buried(number), is_final=False)
            if isinstance(answer, Ready):
                self._starts_in_vain = 0
                continue
            answers.append((number, answer))
            if not isinstance(answer, (Progress, Alive)):
                self._busy.discard(number)
                if answer.is_spent:
                    self._workers.pop(number).stop()
        return answers

    def call(self, task: Task) -> Done:
        """Has one task done, while no other is.

        Raises:
            InputError: it failed; with its reason.
        """
        self.give(self.idle[0], task)
        while True:
            for _, answer in self.wait(1.0):
                if isinstance(answer, Failed):
                    raise InputError(answer.reason)
                if isinstance(answer, Done):
                    return answer

    def end(self, number: int) -> None:
        """Ends a worker with its task; another takes its place."""
        self._workers.pop(number).stop()
        self._busy.discard(number)

    def stop(self) -> None:
        """Ends all workers."""
        for number in list(self._workers):
            self._workers.pop(number).stop()
        self._busy.clear()

    def _start(self, number: int) -> None:
        gpus = self._visible[number * self._gpus : (number + 1) * self._gpus]
        log, workers = self._log(number), len(self.numbers)
        self._workers[number] = WorkerProcess.start(self._module, self._threads, workers, gpus, log)
        self._starts_in_vain += 1

    def _log(self, number: int) -> Path:
        return self._logs / f"worker_{number}.log"

    def _buried(self, number: int) -> str:
        """Removes a worker that died, and says how."""
        how = self._workers.pop(number).stop(has_died=True)
        if self._starts_in_vain > MOST_STARTS * len(self.numbers):
            raise InputError(f"worker processes die before they are ready ({how}); see {self._log(number)}")
        return f"its process died ({how}{_USUAL_CAUSES.get(how, '')})"
