"""Runs a sweep: hands trials to workers, keeps what they answer, goes on after whatever happened."""

import contextlib
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lightning_ss2a.errors import InputError, did_you_mean, one_line
from lightning_ss2a.metric_names import is_baseline
from lightning_ss2a.sweeps.definition import Repeat
from lightning_ss2a.sweeps.records import TrialRecord
from lightning_ss2a.sweeps.running.faults import why_unwritable
from lightning_ss2a.sweeps.running.messages import Alive, Answer, CheckTask, ConfigTask, Done, Failed, Progress, RunTask
from lightning_ss2a.sweeps.running.owner import BEAT_SECONDS
from lightning_ss2a.sweeps.running.pool import WAIT_SECONDS, Pool
from lightning_ss2a.sweeps.running.queue import CHECKED, Claim, TrialQueue, trial_folder
from lightning_ss2a.sweeps.running.steps import run_steps
from lightning_ss2a.sweeps.running.trial_runs import Runs
from lightning_ss2a.sweeps.text import point_text

MANY = 100
"""Of so many configurations it is said that they are checked: each takes a fraction of a second."""


@dataclass
class Running:
    """What a worker is at.

    Args:
        claim: the trial.
        repeats: of the trial, that are not done; the first runs now.
        started: when the trial was given to the worker, by the coordinator's clock.
        heard: when the worker last said that its run moves on, or was given a run.
    """

    claim: Claim
    repeats: list[Repeat]
    started: float
    heard: float


class Coordinator:
    """One process's part in a sweep.

    Args:
        runs: of the sweep.
        queue: its trials.
        pool: idle workers; ended with the coordinator.
        tell: takes a line to print.
        clock: seconds.
    """

    def __init__(
        self,
        runs: Runs,
        queue: TrialQueue,
        pool: Pool,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sweep, self.runs, self.queue, self.pool = runs.sweep, runs, queue, pool
        self.running: dict[int, Running] = {}
        self._tell, self._clock = tell, clock
        self._started = self._beaten = clock()
        self._said_that_it_waits = False

    # ---------------------------------------------------------------- all of it

    def run(self, each_moment: Callable[[], None] = lambda: None) -> None:
        """Runs trials until none is left to take.

        Args:
            each_moment: called about twice a second, to show how things stand.

        Raises:
            InputError: the base configuration, a parameter or a metric is wrong; or something stands in the way of all
                trials, such as a full disk.
            KeyboardInterrupt: Ctrl-C or SIGTERM.

        However it ends, running trials are back in the queue.
        """
        with _terminated_as_interrupted():
            try:
                recovered = self.queue.recover()
                if recovered:
                    self._tell(f"{recovered} trial{'s' * (recovered > 1)} of a process that is gone: queued again")
                if any(record.state == "waiting" for record in self.queue.records()):
                    self._get_ready(each_moment)
                self._run_trials(each_moment)
            except BaseException as error:
                self._give_back(error)
                raise

    def close(self) -> None:
        """Ends the workers."""
        self.pool.stop()

    def elapsed(self, running: Running) -> float:
        """Tells how many seconds a worker has been at a trial."""
        return self._clock() - running.started

    def best_config(self, record: TrialRecord) -> str:
        """Writes YAML text of a trial's configuration; output goes where the base says."""
        options = self.runs.options(record.point, self.runs.repeats[0])
        return self.pool.call(ConfigTask((self.sweep.command, *options))).value

    # ---------------------------------------------------------------- before the first trial

    def _get_ready(self, each_moment: Callable[[], None]) -> None:
        first, *others = self.runs.repeats
        run_steps(self.runs.steps(first), self.pool, self._tell, each_moment)
        if not self.queue.study.user_attrs.get(CHECKED):
            self._check()
            self.queue.study.set_user_attr(CHECKED, True)
        run_steps([step for repeat in others for step in self.runs.steps(repeat)], self.pool, self._tell, each_moment)

    def _check(self) -> None:
        """Builds every kind of configuration there is, and takes one step with the first."""
        first = self.runs.repeats[0]
        configurations = [tuple(self.runs.options(point, first)) for point in self.sweep.space.probes()]
        if len(configurations) > MANY:
            self._tell(f"checking {len(configurations)} configurations")
        task = CheckTask(self.sweep.command, tuple(configurations), f"{self.sweep.root}/check/output.log")
        try:
            logged = self.pool.call(task).value
        except InputError as error:
            raise InputError(f"{error} (nothing was run; all output: {task.log})") from None
        for objective in self.sweep.objectives:
            if objective.metric not in logged:
                known = [name for name in logged if not is_baseline(name)]
                advice = did_you_mean(objective.metric, known)
                raise InputError(f"metric: a run never logs {objective.metric}; {advice} (it logs {', '.join(known)})")

    # ---------------------------------------------------------------- trials

    def _run_trials(self, each_moment: Callable[[], None]) -> None:
        while True:
            for number in self.pool.idle:
                if self._may_begin and (claim := self.queue.claim()) is not None:
                    left = [repeat for repeat in self.runs.repeats if repeat.label not in claim.metrics]
                    now = self._clock()
                    self.running[number] = Running(claim, left, now, now)
                    self._next_run(number)
            if not self.running:
                if self._may_begin and (self.queue.recover() or self._must_wait()):
                    each_moment()
                    time.sleep(WAIT_SECONDS)
                    continue
                return
            for number, answer in self.pool.wait(WAIT_SECONDS):
                self._take(number, answer)
            self._end_those_over_time()
            self._beat()
            each_moment()

    def _must_wait(self) -> bool:
        """Tells whether trials elsewhere may be lost, which shows when their owners give a sign, or give none."""
        undecided = self.queue.undecided()
        if undecided and not self._said_that_it_waits:
            self._tell(f"waiting for a sign of whoever runs {undecided} trial{'s' * (undecided > 1)} elsewhere")
            self._said_that_it_waits = True
        return bool(undecided)

    @property
    def _may_begin(self) -> bool:
        minutes = self.sweep.max_minutes
        return minutes is None or self._clock() - self._started < 60 * minutes

    def _next_run(self, number: int) -> None:
        """Gives the worker the next run of its trial, or ends the trial."""
        running = self.running[number]
        if not running.repeats:
            self._complete(number)
            return
        claim, repeat, running.heard = running.claim, running.repeats[0], self._clock()
        folder = trial_folder(claim.number)
        is_first = repeat is self.runs.repeats[0]
        reported = self.sweep.objectives[0].metric if self.sweep.pruner is not None and is_first else None
        arguments = tuple(self.runs.arguments(claim.point, repeat, folder))
        self.pool.give(number, RunTask(arguments, self.runs.log(repeat, folder), reported))

    def _take(self, number: int, answer: Answer) -> None:
        running = self.running[number]
        running.heard = self._clock()
        if isinstance(answer, Alive):
            return
        if isinstance(answer, Progress):
            self.pool.reply(number, self.queue.report(running.claim, answer.step, answer.value))
        elif isinstance(answer, Failed):
            self._stop_if_not_to_blame(number, answer)
            self._fail(number, answer.reason, answer.is_final)
        elif answer.pruned:
            self.queue.prune(self.running.pop(number).claim)
            self._tell(f"trial {running.claim.number}: pruned")
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
        self._tell(f"trial {claim.number}: {shown} ({point_text(claim.point)})")

    def _fail(self, number: int, reason: str, is_final: bool) -> None:
        claim = self.running.pop(number).claim
        again = self.queue.fail(claim, reason, attempts=0 if is_final else self.sweep.retries + 1)
        self._tell(f"trial {claim.number} failed{', queued again' * again}: {reason} ({point_text(claim.point)})")

    def _stop_if_not_to_blame(self, number: int, answer: Failed) -> None:
        """Puts a trial back and ends the sweep where all trials would fail in the same way, however good they are."""
        unwritable = why_unwritable(self.sweep.root)
        if answer.is_outside or unwritable:
            claim = self.running.pop(number).claim
            reason = answer.reason if unwritable is None or answer.is_outside else f"{answer.reason}; {unwritable}"
            self.queue.put_back(claim, reason)
            raise InputError(
                f"trial {claim.number}: {reason}; no trial's fault, it is queued again: mend it, "
                "then the same command goes on"
            )

    def _end_those_over_time(self) -> None:
        now = self._clock()
        for number, running in list(self.running.items()):
            most, silent = self.sweep.max_trial_minutes, self.sweep.max_silent_minutes
            if most is not None and now - running.started > 60 * most:
                self.pool.end(number)
                self._fail(number, f"took longer than max_trial_minutes, {most:g}", is_final=True)
            elif silent is not None and now - running.heard > 60 * silent:
                self.pool.end(number)
                self._fail(number, f"no step was done in max_silent_minutes, {silent:g}", is_final=False)

    def _beat(self) -> None:
        """Gives a sign of life for each trial, and looks for those of others."""
        if self._clock() - self._beaten < BEAT_SECONDS:
            return
        self._beaten = self._clock()
        for number, running in list(self.running.items()):
            if not self.queue.beat(running.claim.trial):
                self.pool.end(number)
                del self.running[number]
                self._tell(f"trial {running.claim.number}: another process took it for lost; ended here")
        self.queue.watch()

    def _give_back(self, error: BaseException) -> None:
        """Puts running trials back into the queue; they were not to blame."""
        self.pool.stop()
        why = f": {one_line(error)[:300]}" if isinstance(error, Exception) else ""
        with contextlib.suppress(Exception):  # a storage that is gone; the next process recovers them
            self.queue.give_back(f"the sweep was stopped{why}")
        self.running.clear()


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Lets SIGTERM, as a cluster sends it, end a sweep as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
