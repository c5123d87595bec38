"""Runs a sweep: hands trials to workers, keeps what they answer, goes on after whatever happened."""

import contextlib
import math
import shutil
import signal
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_ss2a.errors import InputError, ShardError
from lightning_ss2a.files import FolderLock
from lightning_ss2a.sweeps.definition import Repeat, Sweep
from lightning_ss2a.sweeps.prepare import Step
from lightning_ss2a.sweeps.reporting.text import point_text, replace_file
from lightning_ss2a.sweeps.running.messages import (
    Answer,
    CheckTask,
    CommandTask,
    ConfigTask,
    Done,
    Failed,
    Progress,
    RunTask,
)
from lightning_ss2a.sweeps.running.owner import HEARTBEAT_SECONDS, available_cores, this_owner
from lightning_ss2a.sweeps.running.pool import WorkerPool
from lightning_ss2a.sweeps.running.queue import CHECKED, Claim, TrialQueue, trial_folder
from lightning_ss2a.sweeps.running.records import TrialRecord
from lightning_ss2a.sweeps.running.storage import SAME_SEED, build_pruner, build_sampler, open_storage, storage_errors
from lightning_ss2a.sweeps.running.trial_runs import Runs, step_arguments
from lightning_ss2a.sweeps.space import nearest

SWEEP_FILE = "sweep.yaml"
WAIT_SECONDS = 0.5

Tell = Callable[[str], None]


@dataclass
class Running:
    """What a worker is at.

    Args:
        claim: the trial.
        repeats: of the trial, that are not done; the first runs now.
        started: when the trial was given to the worker, seconds of ``time.monotonic``.
        beat: when its owner was last confirmed.
    """

    claim: Claim
    repeats: list[Repeat]
    started: float
    beat: float


class Coordinator:
    """One process's part in a sweep.

    Args:
        sweep: what the file says.
        tell: takes a line to print.

    Raises:
        InputError: what can be told before anything runs: a storage that is not there, a folder of another sweep,
            options that Optuna refuses.
    """

    def __init__(self, sweep: Sweep, tell: Tell) -> None:
        self.sweep, self.tell = sweep, tell
        self.runs = Runs(sweep)
        sampler = build_sampler(sweep, sweep.sampler_seed)
        pruner = build_pruner(sweep.pruner, sweep.pruner_options)
        points = self.runs.points()
        _check_folder(sweep.root)
        storage = open_storage(sweep.storage, sweep.root)
        self.queue = TrialQueue(storage, sweep.name, sweep.space, sweep.objectives, sampler, pruner)
        if not self.queue.exists and (sweep.root / SWEEP_FILE).exists():
            raise InputError(
                f"{sweep.root} holds a sweep that the storage does not know; name its storage, or take another --name"
            )
        if not self.queue.open(sweep.question()) and sweep.sampler not in SAME_SEED:
            # Or each process that goes on with a study would draw the points that the first has drawn.
            self.queue.sampler = build_sampler(sweep, sweep.sampler_seed + zlib.crc32(this_owner().encode()))
        self.queue.fill(points)
        self._write_sweep_file()
        threads = sweep.threads or max(1, available_cores() // sweep.workers)
        one_task_each = sweep.isolation == "process"
        self.pool = WorkerPool(sweep.workers, threads, sweep.gpus_per_worker, one_task_each, sweep.root / "workers")
        self.running: dict[int, Running] = {}
        self.started = time.monotonic()

    # ---------------------------------------------------------------- all of it

    def run(self, each_moment: Callable[[], None] = lambda: None) -> None:
        """Run trials until none is left to take.

        Args:
            each_moment: called about twice a second, to show how things stand.

        Raises:
            InputError: the base configuration, a parameter or a metric is wrong.
            KeyboardInterrupt: Ctrl-C or SIGTERM; running trials are back in the queue.
        """
        with _terminated_as_interrupted():
            try:
                recovered = self.queue.recover()
                if recovered:
                    self.tell(f"{recovered} trial{'s' * (recovered > 1)} of a process that is gone: queued again")
                if self.waiting():
                    self._get_ready(each_moment)
                self._run_trials(each_moment)
            except storage_errors() as error:
                self._give_back()
                reason = " ".join(str(error).split())[:300]
                raise InputError(f"the storage was lost: {reason}; the same command goes on") from error
            except BaseException:
                self._give_back()
                raise

    def close(self) -> None:
        """End the workers."""
        self.pool.stop()

    def waiting(self) -> int:
        """Number of trials that wait."""
        return sum(record.state == "waiting" for record in self.queue.records())

    def best_config(self, record: TrialRecord) -> str:
        """YAML text of a trial's configuration; output goes where the base says."""
        options = self.runs.options(record.point, self.runs.repeats[0])
        return self.pool.call(ConfigTask((self.sweep.command, *options))).value

    # ---------------------------------------------------------------- before the first trial

    def _get_ready(self, each_moment: Callable[[], None]) -> None:
        first, *others = self.runs.repeats
        self._prepare([first], each_moment)
        if not self.queue.study.user_attrs.get(CHECKED):
            self._check()
            self.queue.study.set_user_attr(CHECKED, True)
        self._prepare(others, each_moment)

    def _check(self) -> None:
        """Build every kind of configuration there is, and take one step with the first."""
        first = self.runs.repeats[0]
        folder = f"{self.sweep.root}/check"
        configurations = [tuple(self.runs.options(point, first)) for point in self.sweep.space.probes()]
        task = CheckTask(self.sweep.command, tuple(configurations), f"{folder}/output.log")
        try:
            logged = self.pool.call(task).value
        except InputError as error:
            raise InputError(f"{error} (nothing was run; all output: {task.log})") from None
        for objective in self.sweep.objectives:
            if objective.metric not in logged:
                known = [name for name in logged if "_floor/" not in name]
                raise InputError(
                    f"metric: a run never logs {objective.metric}; {nearest(objective.metric, known)} "
                    f"(it logs {', '.join(known)})"
                )

    def _prepare(self, repeats: list[Repeat], each_moment: Callable[[], None]) -> None:
        """Have the steps done that these repeats build on, by all workers."""
        steps = {step.output: step for repeat in repeats for step in self.runs.steps(repeat)}
        missing = [step for step in steps.values() if not step.is_done]
        if missing:
            self.tell(f"preparing: {', '.join(sorted({step.name for step in missing}))} ({len(missing)} in all)")
        busy: dict[int, tuple[Step, FolderLock]] = {}
        while missing or busy:
            for number in self.pool.idle:
                step = next((s for s in missing if s.is_ready), None)
                lock = step and _step_lock(step)
                if not lock:
                    break
                missing.remove(step)
                if step.is_done:  # by another sweep, meanwhile
                    lock.release()
                    continue
                shutil.rmtree(step.output, ignore_errors=True)  # of an attempt that was interrupted
                busy[number] = step, lock
                self.pool.give(number, CommandTask(step_arguments(step), f"{step.output}.log"))
            for number, answer in self.pool.wait(WAIT_SECONDS):
                step, lock = busy.pop(number)
                if isinstance(answer, Failed):
                    raise InputError(f"prepare.{step.name}: {answer.reason} (all output: {step.output}.log)")
                step.mark.write_text(f"{' '.join(step.arguments)}\n{answer.seconds:.1f} s\n", encoding="utf-8")
                lock.release()
            missing = [step for step in missing if not step.is_done]
            each_moment()

    # ---------------------------------------------------------------- trials

    def _run_trials(self, each_moment: Callable[[], None]) -> None:
        while True:
            for number in self.pool.idle:
                if self._may_begin and (claim := self.queue.claim()) is not None:
                    done = set(claim.metrics)
                    left = [repeat for repeat in self.runs.repeats if repeat.label not in done]
                    now = time.monotonic()
                    self.running[number] = Running(claim, left, now, now)
                    self._next_run(number)
            if not self.running:
                if self._may_begin and (self.queue.recover() or self.queue.unowned()):
                    time.sleep(WAIT_SECONDS)
                    continue
                return
            for number, answer in self.pool.wait(WAIT_SECONDS):
                self._take(number, answer)
            self._beat()
            each_moment()

    @property
    def _may_begin(self) -> bool:
        minutes = self.sweep.max_minutes
        return minutes is None or time.monotonic() - self.started < 60 * minutes

    def _next_run(self, number: int) -> None:
        """Give the worker the next run of its trial, or end the trial."""
        running = self.running[number]
        if not running.repeats:
            self._complete(number)
            return
        claim, repeat = running.claim, running.repeats[0]
        folder = trial_folder(claim.number)
        best_of = {o.metric: o.maximize for o in self.sweep.objectives} if self.sweep.value == "best" else {}
        is_first = repeat is self.runs.repeats[0]
        reported = self.sweep.objectives[0].metric if self.sweep.pruner != "none" and is_first else None
        arguments = tuple(self.runs.arguments(claim.point, repeat, folder))
        self.pool.give(number, RunTask(arguments, self.runs.log(repeat, folder), best_of, reported))

    def _take(self, number: int, answer: Answer) -> None:
        running = self.running[number]
        if isinstance(answer, Progress):
            self.pool.reply(number, self.queue.report(running.claim, answer.step, answer.value))
        elif isinstance(answer, Failed):
            self._fail(number, answer.reason, answer.is_final)
        elif answer.pruned:
            self.queue.prune(self.running.pop(number).claim)
            self.tell(f"trial {running.claim.number}: pruned")
        else:
            self._keep(number, answer)

    def _keep(self, number: int, answer: Done) -> None:
        running = self.running[number]
        for objective in self.sweep.objectives:
            value = answer.value.get(objective.metric)
            if value is None or not math.isfinite(value):
                what = f"never logged {objective.metric}" if value is None else f"{objective.metric} is {value}"
                self._fail(number, what, is_final=True)
                return
        repeat = running.repeats.pop(0)
        self.queue.keep(running.claim, repeat.label, answer.value, answer.seconds)
        self._next_run(number)

    def _complete(self, number: int) -> None:
        claim = self.running.pop(number).claim
        samples = [[numbers[o.metric] for numbers in claim.metrics.values()] for o in self.sweep.objectives]
        values = [statistics.fmean(sample) for sample in samples]
        self.queue.finish(claim, values)
        shown = ", ".join(f"{o.metric} {value:.4g}" for o, value in zip(self.sweep.objectives, values, strict=True))
        self.tell(f"trial {claim.number}: {shown} ({point_text(claim.point)})")

    def _fail(self, number: int, reason: str, is_final: bool) -> None:
        claim = self.running.pop(number).claim
        again = self.queue.fail(claim, reason, attempts=0 if is_final else self.sweep.retries + 1)
        self.tell(f"trial {claim.number} failed{', queued again' * again}: {reason} ({point_text(claim.point)})")

    def _beat(self) -> None:
        now = time.monotonic()
        for running in self.running.values():
            if now - running.beat > HEARTBEAT_SECONDS:
                self.queue.beat(running.claim.trial)
                running.beat = now

    def _give_back(self) -> None:
        """Put running trials back into the queue; they were not to blame."""
        self.pool.stop()
        with contextlib.suppress(Exception):  # a storage that is gone; the next process recovers them
            self.queue.give_back()
        self.running.clear()

    # ---------------------------------------------------------------- files

    def _write_sweep_file(self) -> None:
        self.sweep.root.mkdir(parents=True, exist_ok=True)
        options = yaml.safe_dump(_given(self.sweep), sort_keys=False)
        replace_file(self.sweep.root / SWEEP_FILE, f"# ss2a sweep -c this file: goes on with the sweep.\n{options}")


def _given(value: Any) -> Any:
    """Plain values of what a sweep file says, without the options that it leaves out."""
    if is_dataclass(value):
        parts = {part.name: getattr(value, part.name) for part in fields(value)}
        return {name: _given(part) for name, part in parts.items() if part is not None}
    if isinstance(value, dict):
        return {name: _given(part) for name, part in value.items()}
    return value


def _check_folder(root: Path) -> None:
    """Refuse a folder of something else.

    Raises:
        InputError: it holds files, and no sweep.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file; take another --name")
    known = (SWEEP_FILE, "study.db")
    if root.is_dir() and any(root.iterdir()) and not any((root / name).exists() for name in known):
        raise InputError(f"{root}: holds files of something else; take another --name, or another --folder")


def _step_lock(step: Step) -> FolderLock | None:
    """A lock on a step; None: another sweep is at it."""
    folder = step.output.with_name(f"{step.output.name}.lock")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FolderLock(folder)
    except ShardError:
        return None


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, as a cluster sends it, ends a sweep as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
