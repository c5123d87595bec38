"""The queue of a sweep's trials, in Optuna's storage: any number of processes and machines take from it.

Every trial is queued before it runs, so that there are exactly as many as asked for, whoever takes them and whoever
dies: taking one is a single step of the storage. A trial that died stays, failed, with its reason; another one with the
same point takes its slot.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.running.owner import is_lost, this_owner
from lightning_ss2a.sweeps.running.records import Objective, State, TrialRecord
from lightning_ss2a.sweeps.running.storage import quietly
from lightning_ss2a.sweeps.space import Point, SearchSpace

QUESTION = "question"
MAKER = "maker"
CHECKED = "checked"
"""Notes of a study: what it asks, who made it and when, and whether its configurations were found to be right."""

AGAIN = "again"
"""Note of a failed trial that it is to be queued again, as this attempt."""

UNOWNED_SECONDS = 5
"""A trial that was taken and has no owner by then has lost its process."""

_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
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
        self._first_seen: dict[int, float] = {}  # trials without owner; clocks of other machines may be wrong

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
            study.set_user_attr(MAKER, [self._owner, time.time()])
            study.set_user_attr(QUESTION, question)
            return True
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

    def fill(self, points: Sequence[Point]) -> None:
        """Queues a trial for each slot that has none.

        Args:
            points: of each slot; what a point does not hold is the sampler's choice.
        """
        taken = {trial.user_attrs.get("slot") for trial in self._trials()}
        study = self.study
        for slot, point in enumerate(points):
            if slot not in taken:
                study.enqueue_trial(point, user_attrs={"slot": slot, "attempt": 0})

    def recover(self) -> int:
        """Fails the trials whose process is gone and queues them again; counts them.

        That is no fault of theirs, and does not count as an attempt.
        """
        lost = 0
        for trial in self._trials(TrialState.RUNNING):
            owner = trial.user_attrs.get("owner")
            if owner is None:  # taken a moment ago, or its process died at that moment
                now = self._clock()
                gone = now - self._first_seen.setdefault(trial.number, now) > UNOWNED_SECONDS
            else:
                gone = is_lost(owner, trial.user_attrs.get("heartbeat", time.time()))
            if gone:
                lost += self._fail(trial, "its process was killed", trial.user_attrs["attempt"])
        self._queue_those_to_try_again()
        return lost

    def unowned(self) -> int:
        """Counts the trials that were taken, by nobody knows whom yet."""
        return sum("owner" not in trial.user_attrs for trial in self._trials(TrialState.RUNNING))

    # ---------------------------------------------------------------- one trial

    def claim(self) -> Claim | None:
        """Takes the next trial; None: none is waiting."""
        study_id = self.storage.get_study_id_from_name(self.name)
        for waiting in self._trials(TrialState.WAITING):
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, waiting.number)
            self._taking = waiting.number
            try:
                if not self.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                    continue  # another was faster
                trial = optuna.Trial(self.study, trial_id)
                self.beat(trial)  # first, so that whoever has an owner has been heard of
                trial.set_user_attr("owner", self._owner)
                if waiting.number in _doubles(self._trials()):
                    self._fail(waiting, "two machines queued it at the same time", None)
                    continue
                with quietly():  # a range need not end with a step
                    point = self.space.suggest(trial)
            except optuna.exceptions.UpdateFinishedTrialError:
                continue  # another has done it, or took this process for dead
            attributes = waiting.user_attrs
            return Claim(trial, point, dict(attributes.get("metrics", {})), attributes.get("seconds", 0.0))
        return None

    def beat(self, trial: optuna.Trial) -> None:
        """Says that this process still runs a trial."""
        with _UNLESS_ENDED:
            trial.set_user_attr("heartbeat", time.time())

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
        attempt = trial.user_attrs["attempt"] + 1
        again = attempt < attempts
        self._fail(trial, reason, attempt if again else None)
        self._queue_those_to_try_again()
        return again

    def give_back(self) -> None:
        """Queues the trials that this process runs again: it is to end, and they were not to blame."""
        for trial in self._trials(TrialState.RUNNING):
            if trial.user_attrs.get("owner", trial.number) in (self._owner, self._taking):
                self._fail(trial, "the sweep was stopped", trial.user_attrs["attempt"])
        self._queue_those_to_try_again()

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

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        study_id = self.storage.get_study_id_from_name(self.name)
        return sorted(self.storage.get_all_trials(study_id, states=states or None), key=lambda trial: trial.number)

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
        trials, study = self._trials(), self.study
        followed = {trial.user_attrs.get("follows") for trial in trials}
        for trial in trials:
            if trial.state == TrialState.FAIL and AGAIN in trial.user_attrs and trial.number not in followed:
                kept = {name: trial.user_attrs[name] for name in ("metrics", "seconds") if name in trial.user_attrs}
                place = {"slot": trial.user_attrs["slot"], "attempt": trial.user_attrs[AGAIN], "follows": trial.number}
                point = trial.params or trial.system_attrs.get("fixed_params", {})
                study.enqueue_trial(point, user_attrs=kept | place)

    def _is_abandoned(self, study: optuna.Study) -> bool:
        """Tells whether no trial of a study has begun, nor will: its maker never got so far, and is gone."""
        owner, when = study.user_attrs.get(MAKER, (self._owner, 0.0))
        return not study.user_attrs.get(CHECKED) and (owner == self._owner or is_lost(owner, when))


def _doubles(trials: Sequence[FrozenTrial]) -> set[int]:
    """Finds the trials for slots that another machine had filled, or queued again, at the same time."""
    first: dict[tuple[Any, Any], int] = {}
    places = {trial.number: (trial.user_attrs.get("slot"), trial.user_attrs.get("follows")) for trial in trials}
    return {number for number, place in places.items() if first.setdefault(place, number) != number}


def trial_folder(number: int) -> str:
    """Names the folder of a trial, below that of its study."""
    return f"trials/{number:04d}"
