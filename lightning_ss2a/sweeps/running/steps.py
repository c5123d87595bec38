"""Has the steps done that trials build on, by all workers."""

import shutil
from collections.abc import Callable, Iterable

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import FolderLock, write_whole
from lightning_ss2a.sweeps.prepare import Step
from lightning_ss2a.sweeps.running.messages import CommandTask, Done, Failed
from lightning_ss2a.sweeps.running.pool import WAIT_SECONDS, Pool
from lightning_ss2a.sweeps.running.trial_runs import step_arguments


def run_steps(steps: Iterable[Step], pool: Pool, tell: Callable[[str], None], each_moment: Callable[[], None]) -> None:
    """Runs the steps that are not done yet, each once what it builds on is there.

    Args:
        steps: of a sweep, in order; those of several repeats may be the same.
        pool: idle workers.
        tell: takes a line to print.
        each_moment: called about twice a second.

    Raises:
        InputError: a step failed; with its reason.
    """
    missing = [step for step in {step.output: step for step in steps}.values() if not step.is_done]
    if missing:
        tell(f"preparing: {', '.join(sorted({step.name for step in missing}))} ({len(missing)} in all)")
    busy: dict[int, tuple[Step, FolderLock]] = {}
    while missing or busy:
        for number in pool.idle:
            step = next((step for step in missing if step.is_ready), None)
            lock = None if step is None else _lock(step)
            if step is None or lock is None:
                break
            missing.remove(step)
            if step.is_done:  # by another sweep, meanwhile
                lock.release()
                continue
            shutil.rmtree(step.output, ignore_errors=True)  # of an attempt that was interrupted
            busy[number] = step, lock
            pool.give(number, CommandTask(step_arguments(step), f"{step.output}.log"))
        for number, answer in pool.wait(WAIT_SECONDS):
            step, lock = busy.pop(number)
            if isinstance(answer, Failed):
                raise InputError(f"prepare.{step.name}: {answer.reason} (all output: {step.output}.log)")
            if isinstance(answer, Done):
                write_whole(step.mark, f"{' '.join(step.arguments)}\n{answer.seconds:.1f} s\n")
            lock.release()
        missing = [step for step in missing if not step.is_done]
        each_moment()


def _lock(step: Step) -> FolderLock | None:
    """Locks a step; None: another sweep is at it."""
    folder = step.output.with_name(f"{step.output.name}.lock")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FolderLock(folder)
    except InputError:
        return None
