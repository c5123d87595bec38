"""The queue of a sweep's trials, in Optuna's storage: any number of processes and machines take from it.

Every trial is queued before it runs, so that there are exactly as many as asked for, whoever takes them and whoever
dies: taking one is a single step of the storage. A trial that died stays, failed, with its reason; another one with the
same point takes its slot.
"""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.records import Objective, State, TrialRecord
from lightning_ss2a.sweeps.running.owner import LOST_AFTER_SECONDS, Watch, is_there, this_owner
from lightning_ss2a.sweeps.running.storage import few_trials, quietly
from lightning_ss2a.sweeps.space import Point, SearchSpace

QUESTION = "question"
MAKER = "maker"
CHECKED = "checked"
"""Notes of a study: what it asks, who is making it, and whether its configurations were found to be right."""

LOST = "its process ended without a word: killed, or no room was left to write one"
"""Reason of a trial that was found with its process gone."""

AGAIN = "again"
"""Note of a failed trial that it is to be queued again, as this attempt."""

UNOWNED_SECONDS = 60
"""A trial that was taken and has no owner by then has lost its process."""

LIST_SECONDS = 10
"""Others may have taken trials of a list that is older: it is read again at the first that they have."""

TELL_SECONDS = 10
"""Time between two lines about trials that are being queued."""

_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_NOTES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("slot", "attempt", "follows", AGAIN), int),
    **dict.fromkeys(("owner", "reason"), str),
    "metrics": dict,
    "seconds": (int, float),
}
"""Notes of a trial, and what they are."""

_UNLESS_ENDED = contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError)
"""Another machine, which heard nothing of this one for long, may have taken its trial for lost."""


@dataclass
class Claim:
    """A trial that this process has taken.

    Args:
        trial: Optuna's.
        point: where in the search space it is.
        metrics: numbers of the repeats that are done, by repeat; of an earlier attempt, too.
        seconds: that these took.
    """

    trial: optuna.Trial
    point: Point
    metrics: dict[str, dict[str, float]]
    seconds: float = 0.0

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.trial.number


class TrialQueue:
    """The trials of one study.

    Args:
        storage: Optuna's.
        name: of the study.
        space: what points are drawn from.
        objectives: what is optimised.
        sampler: chooses points.
        pruner: stops trials.
        owner: names the process that takes trials; None: this one.
        clock: seconds of this machine.
    """

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        name: str,
        space: SearchSpace,
        objectives: Sequence[Objective],
        sampler: optuna.samplers.BaseSampler,
        pruner: optuna.pruners.BasePruner,
        owner: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.storage, self.name, self.space = storage, name, space
        self.objectives = list(objectives)
        self._sampler, self._pruner = sampler, pruner
        self._owner, self._clock = owner or this_owner(), clock
        self._taking: int | None = None  # number of a trial that is being claimed
        self._signs = itertools.count()
        self._watch = Watch(clock)
        self._waiting: deque[FrozenTrial] = deque()  # as they were when last looked for, and
        self._doubles: set[int] = set()  # numbers of those that another machine had queued at the same time
        self._listed = 0.0

    # ---------------------------------------------------------------- the study

    @property
    def exists(self) -> bool:
        """Whether the storage has the study."""
        return any(study.study_name == self.name for study in self.storage.get_all_studies())

    def open(self, question: dict[str, str]) -> bool:
        """Makes the study, or goes on with it; tells whether it was made.

        One that was never found to be right, by a process that is gone, gives way to another question.

        Raises:
            InputError: the study that is there asks another question.
        """
        directions = [objective.direction for objective in self.objectives]
        study = optuna.create_study(
            storage=self.storage, study_name=self.name, directions=directions, load_if_exists=True
        )
        there = study.user_attrs.get(QUESTION)
        if there is None:
            with quietly():
                study.set_metric_names([objective.metric for objective in self.objectives])
            study.set_user_attr(MAKER, self._owner)
            study.set_user_attr(QUESTION, question)
            return True
        if not isinstance(there, dict):
            raise InputError(f"the study {self.name}: its note {QUESTION} is damaged; take another --name")
        changed = sorted(name for name in {*there, *question} if there.get(name) != question.get(name))
        if changed and self._is_abandoned(study):
            optuna.delete_study(storage=self.storage, study_name=self.name)
            return self.open(question)
        if changed:
            raise InputError(
                f"the study {self.name} is of another sweep, with other {', '.join(changed)}; "
                "take another --name for this one"
            )
        # Or each process that goes on with a study would draw the points that the first has drawn.
        self._sampler.reseed_rng()
        return False

    @property
    def study(self) -> optuna.Study:
        """The study as it is in the storage now; an older one would remember trials as they were."""
        return optuna.load_study(storage=self.storage, study_name=self.name, sampler=self._sampler, pruner=self._pruner)

    # ---------------------------------------------------------------- filling

    def fill(self, points: Sequence[Point], tell: Callable[[str], None] = lambda line: None) -> None:
        """Queues a trial for each slot that has none.

        Args:
            points: of each slot; what a point does not hold is the sampler's choice.
            tell: takes a line to print: a disk may take a hundredth of a second a trial.
        """
        taken = {trial.user_attrs.get("slot") for trial in self._trials()}
        missing = [(slot, point) for slot, point in enumerate(points) if slot not in taken]
        study, told = self.study, self._clock()
        for number, (slot, point) in enumerate(missing):
            if self._clock() - told > TELL_SECONDS:
                tell(f"queueing trials: {number} of {len(missing)}")
                told = self._clock()
            study.enqueue_trial(point, user_attrs={"slot": slot, "attempt": 0})

    def recover(self) -> int:
        """Does what :meth:`watch` does, and what processes left undone that died while they failed a trial."""
        lost = self.watch()
        self._queue_those_to_try_again()
        return lost

    def watch(self) -> int:
        """Fails the trials whose process is gone and queues them again; counts them.

        That is no fault of theirs, and does not count as an attempt.
        """
        lost = 0
        for trial in self._trials(TrialState.RUNNING):
            if self._is_lost(trial) and self._fail(trial, LOST, _attempt(trial)):
                self._queue_again(trial)
                lost += 1
        return lost

    def undecided(self) -> int:
        """Counts the trials of others that may or may not be lost: not even one sign of their owners was seen yet."""
        running = self._trials(TrialState.RUNNING)
        return sum(not is_there(_owner(trial)) and not self._watch.knows(trial.number) for trial in running)

    # ---------------------------------------------------------------- one trial

    def claim(self) -> Claim | None:
        """Takes the next trial; None: none is waiting."""
        study_id = self.storage.get_study_id_from_name(self.name)
        while (waiting := self._next_waiting()) is not None:
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, waiting.number)
            self._taking = waiting.number
            try:
                if not self.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                    raise optuna.exceptions.UpdateFinishedTrialError
                trial = optuna.Trial(self.study, trial_id)
                self.beat(trial)  # first, so that whoever has an owner has given a sign
                trial.set_user_attr("owner", self._owner)
                if waiting.number in self._doubles:
                    self._fail(waiting, "two machines queued it at the same time", None)
                    continue
                with quietly():  # a range need not end with a step
                    point = self.space.suggest(trial)
            except optuna.exceptions.UpdateFinishedTrialError:  # another was faster, or took this process for dead
                if self._clock() - self._listed > LIST_SECONDS:
                    self._waiting.clear()
                continue
            attributes = waiting.user_attrs
            return Claim(trial, point, dict(attributes.get("metrics", {})), attributes.get("seconds", 0.0))
        return None

    def _next_waiting(self) -> FrozenTrial | None:
        """Finds the first trial that was waiting when all were last read, which takes long where they are many.

        Trials that are queued again come last, and are found when the list is at its end.
        """
        if not self._waiting:
            self._listed, trials = self._clock(), self._trials()
            self._waiting = deque(trial for trial in trials if trial.state == TrialState.WAITING)
            self._doubles = _doubles(trials)
        return self._waiting.popleft() if self._waiting else None

    def beat(self, trial: optuna.Trial) -> bool:
        """Gives a sign of life; tells whether this process still has the trial: others may take it for lost."""
        with _UNLESS_ENDED:
            trial.set_user_attr("beat", next(self._signs))
            return True
        return False

    def report(self, claim: Claim, step: int, value: float) -> bool:
        """Keeps a validation's value; tells whether the trial is to be stopped."""
        with _UNLESS_ENDED:
            claim.trial.report(value, step)
            return claim.trial.should_prune()
        return True

    def keep(self, claim: Claim, repeat: str, metrics: dict[str, float], seconds: float) -> None:
        """Keeps the numbers of a repeat that is done."""
        claim.metrics[repeat] = metrics
        claim.seconds += seconds
        with _UNLESS_ENDED:
            claim.trial.set_user_attr("metrics", claim.metrics)
            claim.trial.set_user_attr("seconds", claim.seconds)

    def finish(self, claim: Claim, values: Sequence[float]) -> None:
        """Completes a trial."""
        self.study.tell(claim.number, list(values), skip_if_finished=True)

    def prune(self, claim: Claim) -> None:
        """Ends a trial that was stopped, since others were better at the same point of their training."""
        self.study.tell(claim.number, state=TrialState.PRUNED, skip_if_finished=True)

    def fail(self, claim: Claim, reason: str, attempts: int) -> bool:
        """Ends a trial that died; tells whether it was queued again.

        Args:
            claim: the trial.
            reason: one line.
            attempts: how many a trial may have.
        """
        trial = self.storage.get_trial(claim.trial._trial_id)
        attempt = _attempt(trial) + 1
        again = attempt < attempts
        if self._fail(trial, reason, attempt if again else None) and again:
            self._queue_again(trial)
        return again

    def put_back(self, claim: Claim, reason: str) -> None:
        """Ends a trial that was not to blame and queues it again, which does not count as an attempt.

        Args:
            claim: the trial.
            reason: one line.
        """
        trial = self.storage.get_trial(claim.trial._trial_id)
        if self._fail(trial, reason, _attempt(trial)):
            self._queue_again(trial)

    def give_back(self, reason: str = "the sweep was stopped") -> None:
        """Queues the trials that this process runs again, which is to end, and leaves a study that was never right.

        Args:
            reason: one line.
        """
        for trial in self._trials(TrialState.RUNNING):
            if trial.user_attrs.get("owner", trial.number) in (self._owner, self._taking):
                self._fail(trial, reason, _attempt(trial))
        self._queue_those_to_try_again()
        study = self.study
        if study.user_attrs.get(MAKER) == self._owner:
            study.set_user_attr(MAKER, "")

    # ---------------------------------------------------------------- looking

    def records(self) -> list[TrialRecord]:
        """Lists all trials, in the order of the queue; one that two machines queued at the same time counts once."""
        trials = self._trials()
        doubles = _doubles(trials)
        return [
            TrialRecord(
                number=trial.number,
                state=_STATES[trial.state],
                point=dict(trial.params),
                metrics=trial.user_attrs.get("metrics", {}),
                reason=trial.user_attrs.get("reason"),
                seconds=trial.user_attrs.get("seconds"),
                folder=trial_folder(trial.number),
                follows=trial.user_attrs.get("follows"),
            )
            for trial in trials
            if trial.number not in doubles
        ]

    # ---------------------------------------------------------------- how it is done

    def _trials(self, state: TrialState | None = None) -> list[FrozenTrial]:
        """Lists trials by number, to be read only: all, or the few of a state."""
        study_id = self.storage.get_study_id_from_name(self.name)
        found = (
            self.storage.get_all_trials(study_id, deepcopy=False)
            if state is None
            else few_trials(self.storage, study_id, state)
        )
        for trial in found:
            _check_notes(trial)
        return sorted(found, key=lambda trial: trial.number)

    def _is_lost(self, trial: FrozenTrial) -> bool:
        owner = _owner(trial)
        silence = self._watch.silence(trial.number, (owner, trial.user_attrs.get("beat")))
        if not owner:  # taken a moment ago, or its process died at that moment
            return silence > UNOWNED_SECONDS
        there = is_there(owner)
        return silence > LOST_AFTER_SECONDS if there is None else not there

    def _fail(self, trial: FrozenTrial, reason: str, next_attempt: int | None) -> bool:
        """Fails a trial; False: another process has ended it meanwhile."""
        notes = {"reason": reason} | ({} if next_attempt is None else {AGAIN: next_attempt})
        with _UNLESS_ENDED:
            for name, note in notes.items():
                self.storage.set_trial_user_attr(trial._trial_id, name, note)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            return True
        return False

    def _queue_those_to_try_again(self) -> None:
        """Queues in a step of its own, so that the next process does it where one dies after failing a trial."""
        trials = self._trials()
        followed = {trial.user_attrs.get("follows") for trial in trials}
        for trial in trials:
            if trial.state == TrialState.FAIL and AGAIN in trial.user_attrs and trial.number not in followed:
                self._queue_again(trial)

    def _queue_again(self, failed: FrozenTrial) -> None:
        trial = self.storage.get_trial(failed._trial_id)  # as it is now
        kept = {name: trial.user_attrs[name] for name in ("slot", "metrics", "seconds") if name in trial.user_attrs}
        place = {"attempt": trial.user_attrs[AGAIN], "follows": trial.number}
        point = trial.params or trial.system_attrs.get("fixed_params", {})
        self.study.enqueue_trial(point, user_attrs=kept | place)

    def _is_abandoned(self, study: optuna.Study) -> bool:
        """Tells whether no trial of a study has begun, nor will: its maker never got so far, and is gone."""
        maker = str(study.user_attrs.get(MAKER, ""))
        return not study.user_attrs.get(CHECKED) and (maker in ("", self._owner) or is_there(maker) is False)


def _owner(trial: FrozenTrial) -> str:
    return trial.user_attrs.get("owner", "")


def _attempt(trial: FrozenTrial) -> int:
    return trial.user_attrs.get("attempt", 0)


def _check_notes(trial: FrozenTrial) -> None:
    """Refuses what no sweep wrote.

    Raises:
        InputError: names the trial and the note.
    """
    for name, kind in _NOTES.items():
        if name in trial.user_attrs and not isinstance(trial.user_attrs[name], kind):
            raise _damaged(trial, name)
    if trial.state == TrialState.COMPLETE and not trial.values:
        raise _damaged(trial, "value")
    if not isinstance(trial.system_attrs.get("fixed_params", {}), dict):
        raise _damaged(trial, "fixed_params")
    for numbers in trial.user_attrs.get("metrics", {}).values():
        if not isinstance(numbers, dict) or not all(isinstance(number, (int, float)) for number in numbers.values()):
            raise _damaged(trial, "metrics")


def _damaged(trial: FrozenTrial, note: str) -> InputError:
    return InputError(
        f"the storage is damaged: what trial {trial.number} holds as {note} is missing or was written by no sweep; "
        "put a copy of it back, or take another --name"
    )


def _doubles(trials: Sequence[FrozenTrial]) -> set[int]:
    """Finds the trials for slots that another machine had filled, or queued again, at the same time."""
    first: dict[tuple[Any, Any], int] = {}
    places = {
        trial.number: (trial.user_attrs["slot"], trial.user_attrs.get("follows"))
        for trial in trials
        if "slot" in trial.user_attrs  # or somebody else queued it, with Optuna's own tools
    }
    return {number for number, place in places.items() if first.setdefault(place, number) != number}


def trial_folder(number: int) -> str:
    """Names the folder of a trial, below that of its study."""
    return f"trials/{number:04d}"
