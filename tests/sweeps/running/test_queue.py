"""The queue: as many trials as asked for, whoever takes them and whoever dies."""

import itertools
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.records import Objective
from lightning_ss2a.sweeps.running import queue as queue_module
from lightning_ss2a.sweeps.running.owner import BEAT_SECONDS, LOST_AFTER_SECONDS, _began, this_owner
from lightning_ss2a.sweeps.running.queue import LOST, TrialQueue
from lightning_ss2a.sweeps.space import Parameter, SearchSpace
from tests.sweeps.running.queues import (
    POINTS,
    QUESTION,
    fill_and_claim_all,
    filled,
    in_processes,
    make_queue,
    opened,
    slots,
)


def numbers(queue: TrialQueue, state: str) -> list[int]:
    return [record.number for record in queue.records() if record.state == state]


def owned_by(queue: TrialQueue, owner: str) -> TrialQueue:
    return make_queue(queue.storage, owner=owner)


# ---------------------------------------------------------------- filling and taking


def test_each_point_is_claimed_once_and_in_order():
    queue = filled()
    claims = [queue.claim() for _ in POINTS]
    assert [claim.point for claim in claims] == POINTS
    assert queue.claim() is None
    assert numbers(queue, "running") == list(range(len(POINTS)))


def test_filling_again_adds_only_what_is_missing():
    queue = filled(POINTS[:3])
    queue.finish(queue.claim(), [0.5])
    queue.fill(POINTS[:5])
    queue.fill(POINTS[:5])
    assert numbers(queue, "waiting") == [1, 2, 3, 4]


def test_the_sampler_chooses_what_a_point_leaves_out():
    queue = filled([{}, {"x": 3}])
    free, fixed = queue.claim(), queue.claim()
    assert free.point.keys() == fixed.point.keys() == {"x", "y"}
    assert fixed.point["x"] == 3
    assert free.point["y"] != fixed.point["y"]


def test_a_slot_that_two_machines_filled_counts_once(monkeypatch: pytest.MonkeyPatch):
    queue = filled(POINTS[:2])
    other = make_queue(queue.storage)
    with monkeypatch.context() as patch:  # as the other saw it before: empty
        patch.setattr(other, "_trials", lambda: [])
        other.fill(POINTS[:2])
    assert numbers(queue, "waiting") == [0, 1]
    claims = list(iter(queue.claim, None))
    assert [claim.number for claim in claims] == [0, 1]
    assert [record.number for record in queue.records()] == [0, 1]
    assert slots(queue, TrialState.FAIL) == [0, 1]  # the other two


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_processes_that_fill_and_claim_together_finish_every_slot_once(tmp_path: Path, kind):
    url = None if kind == "sqlite" else str(tmp_path / "study.journal")
    finished = in_processes(3, fill_and_claim_all, url, tmp_path)
    queue = opened(url, tmp_path)
    assert slots(queue) == list(range(len(POINTS)))
    assert sorted(itertools.chain(*finished)) == numbers(queue, "complete")
    assert len(queue.records()) == len(POINTS)
    assert [record.point for record in queue.records()] == POINTS


def test_processes_that_make_the_study_at_the_same_moment(tmp_path: Path):
    in_processes(3, fill_and_claim_all, None, tmp_path)
    assert slots(opened(None, tmp_path)) == list(range(len(POINTS)))


def test_taking_a_trial_does_not_read_all_that_wait():
    queue = filled([{"x": 1}] * 30)
    asked = Counted(queue.storage)
    queue.storage = asked
    for _ in range(20):
        queue.finish(queue.claim(), [0.5])
    assert asked.times == 1


class Counted:
    """A storage that counts how often all trials are read."""

    def __init__(self, storage: Any) -> None:
        self.storage, self.times = storage, 0

    def __getattr__(self, name: str) -> Any:
        self.times += name == "get_all_trials"
        return getattr(self.storage, name)


def test_trials_that_others_have_taken_are_passed_over_and_the_list_read_again():
    now = [0.0]
    queue = filled(POINTS[:6], clock=lambda: now[0])
    assert queue.claim().number == 0
    other = make_queue(queue.storage)
    assert [other.claim().number for _ in range(2)] == [1, 2]
    assert queue.claim().number == 3
    other.finish(other.claim(), [0.5])
    now[0] += queue_module.LIST_SECONDS + 1
    assert queue.claim().number == 5
    assert queue.claim() is None


def test_filling_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    ticks = itertools.count(step=queue_module.TELL_SECONDS // 2 + 1)
    queue = make_queue(clock=lambda: float(next(ticks)))
    queue.open(QUESTION)
    queue.fill(POINTS[:4], lines.append)
    assert lines[0] == "queueing trials: 1 of 4"


@pytest.mark.parametrize(
    ("note", "value"),
    [("slot", "x"), ("attempt", [1]), ("owner", 3), ("metrics", []), ("metrics", {"seed_0": {"val/x": "1"}})],
)
def test_a_damaged_note_is_named(note: str, value: Any):
    queue = filled(POINTS[:2])
    queue.storage.set_trial_user_attr(1, note, value)
    with pytest.raises(InputError, match=f"the storage is damaged: what trial 1 holds as {note} is missing"):
        queue.claim()


def test_a_damaged_question():
    queue = filled()
    queue.study.set_user_attr(queue_module.QUESTION, ["x"])
    with pytest.raises(InputError, match="its note question is damaged"):
        make_queue(queue.storage).open(QUESTION)


def test_trials_that_someone_queued_with_optuna_s_tools():
    queue = filled(POINTS[:1])
    for _ in range(2):
        queue.study.enqueue_trial({"x": 3})
    assert [claim.point["x"] for claim in iter(queue.claim, None)] == [1, 3, 3]
    assert len(queue.records()) == 3


# ---------------------------------------------------------------- the study


def test_a_study_goes_on_with_the_same_question_only():
    queue = filled()
    queue.study.set_user_attr(queue_module.CHECKED, True)
    assert not make_queue(queue.storage).open(QUESTION)
    with pytest.raises(InputError, match="another sweep, with other metric, parameters; take another --name"):
        make_queue(queue.storage).open({"parameters": "z", "metric": "val/z"})


def test_a_study_that_was_never_right_gives_way():
    queue = filled()
    queue.study.set_user_attr(queue_module.MAKER, dead_owner())
    other = make_queue(queue.storage)
    assert other.open({"parameters": "z"})
    assert other.records() == []


def test_a_study_whose_maker_gave_it_up_gives_way_wherever_he_was():
    queue = filled(owner="elsewhere")
    with pytest.raises(InputError, match="another sweep"):
        make_queue(queue.storage).open({"parameters": "z"})
    queue.give_back()
    assert make_queue(queue.storage).open({"parameters": "z"})


def test_a_study_whose_maker_is_at_it_does_not_give_way():
    queue = filled()
    other = owned_by(queue, "another process")
    with pytest.raises(InputError, match="another sweep"):
        other.open({"parameters": "z"})


# ---------------------------------------------------------------- ends


def test_a_failed_trial_is_tried_again_as_often_as_allowed():
    queue = filled(POINTS[:1])
    assert queue.fail(queue.claim(), "died", attempts=2)
    assert not queue.fail(queue.claim(), "died again", attempts=2)
    assert queue.claim() is None
    first, second = queue.records()
    assert (first.reason, second.reason, second.follows) == ("died", "died again", 0)
    assert second.point == first.point == POINTS[0]


def test_an_interruption_is_no_attempt():
    queue = filled(POINTS[:1])
    for _ in range(4):
        queue.claim()
        queue.give_back()
    assert queue.fail(queue.claim(), "died", attempts=2)
    assert not queue.fail(queue.claim(), "died", attempts=2)


def test_what_was_no_fault_of_the_trial_is_no_attempt_and_its_reason_stays():
    queue = filled(POINTS[:1])
    for _ in range(4):
        queue.put_back(queue.claim(), "disk full")
    assert queue.fail(queue.claim(), "died", attempts=2)
    assert [record.reason for record in queue.records()] == [*["disk full"] * 4, "died", None]


def test_a_final_failure_is_not_tried_again():
    queue = filled(POINTS[:1])
    assert not queue.fail(queue.claim(), "wrong", attempts=0)
    assert queue.claim() is None


def test_the_next_attempt_keeps_finished_repeats_and_the_sampler_s_point():
    queue = filled([{}])
    claim = queue.claim()
    queue.keep(claim, "seed_0", {"val/x": 1.0}, 2.0)
    queue.fail(claim, "died", attempts=2)
    again = queue.claim()
    assert again.point == claim.point
    assert (again.metrics, again.seconds) == ({"seed_0": {"val/x": 1.0}}, 2.0)
    queue.keep(again, "seed_1", {"val/x": 3.0}, 1.0)
    queue.finish(again, [2.0])
    record = queue.records()[-1]
    assert record.values("val/x") == {"seed_0": 1.0, "seed_1": 3.0}
    assert record.seconds == 3.0
    assert record.mean("val/x") == 2.0


def test_nothing_is_lost_between_failing_and_queueing_again(monkeypatch: pytest.MonkeyPatch):
    queue = filled(POINTS[:1])
    claim = queue.claim()
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_queue_again", lambda trial: None)  # the process dies here
        queue.fail(claim, "died", attempts=2)
    assert queue.claim() is None
    assert make_queue(queue.storage).recover() == 0
    assert queue.claim().point == POINTS[0]


def test_a_trial_that_another_machine_ended_takes_nothing_more():
    queue = filled(POINTS[:1])
    claim = queue.claim()
    make_queue(queue.storage).give_back()
    queue.beat(claim.trial)
    queue.keep(claim, "seed_0", {"val/x": 1.0}, 1.0)
    assert queue.report(claim, 1, 0.5)  # stops the run
    queue.prune(claim)
    queue.finish(claim, [1.0])
    assert [record.state for record in queue.records()] == ["failed", "waiting"]


def test_a_pruned_trial_is_no_failure():
    queue = filled(POINTS[:1])
    claim = queue.claim()
    queue.report(claim, 1, 0.5)
    queue.prune(claim)
    assert [record.state for record in queue.records()] == ["pruned"]


def test_several_objectives():
    queue = filled(POINTS[:1], objectives=[Objective("a"), Objective("b", maximize=False)])
    queue.finish(queue.claim(), [1.0, 2.0])
    (best,) = queue.study.best_trials
    assert best.values == [1.0, 2.0]
    assert queue.study.metric_names == ["a", "b"]


def test_conditional_parameters_are_drawn_only_where_they_count():
    space = SearchSpace({"kind": Parameter(choices=["a", "b"]), "size": Parameter(low=1, high=4, when={"kind": "b"})})
    queue = filled(space.grid(), space=space)
    points = [claim.point for claim in iter(queue.claim, None)]
    assert points == [{"kind": "a"}, *({"kind": "b", "size": size} for size in (1, 2, 3, 4))]


# ---------------------------------------------------------------- those who died


def dead_owner() -> str:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    host, place, *_ = this_owner().split(" ")
    owner = f"{host} {place} {child.pid} {_began(child.pid)}"
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return owner


def test_a_trial_of_a_dead_process_is_queued_again_and_that_is_no_attempt():
    queue = filled(POINTS[:2])
    owned_by(queue, dead_owner()).claim()
    queue.claim()
    assert queue.recover() == 1
    assert queue.recover() == 0
    assert [record.state for record in queue.records()] == ["failed", "running", "waiting"]
    assert queue.records()[0].reason == LOST
    again = queue.claim()
    assert again.point == POINTS[0]
    assert not queue.fail(again, "died", attempts=1)


def test_a_process_that_ends_gives_back_what_it_runs(monkeypatch: pytest.MonkeyPatch):
    queue = filled(POINTS[:3])
    owned_by(queue, "elsewhere 1 began").claim()
    queue.claim()

    def interrupted(trial: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "beat", interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.claim()
    queue.give_back()
    assert numbers(queue, "running") == [0]
    assert numbers(queue, "waiting") == [3, 4]


def test_two_that_recover_the_same_trial_queue_it_once():
    queue = filled(POINTS[:1])
    owned_by(queue, dead_owner()).claim()
    assert queue.recover() + make_queue(queue.storage).recover() == 1
    assert numbers(queue, "waiting") == [1]


def test_a_trial_whose_process_died_as_it_took_it():
    time = [0.0]
    queue = filled(POINTS[:1], clock=lambda: time[0])
    queue.storage.set_trial_state_values(0, TrialState.RUNNING)
    assert queue.recover() == 0
    assert queue.undecided() == 1
    assert queue.recover() == 0  # it may be about to say who it is
    time[0] = queue_module.UNOWNED_SECONDS + 1.0
    assert queue.recover() == 1
    assert queue.claim().point == POINTS[0]


def elsewhere(name: str) -> str:
    """Owner in a container of this machine, with this machine's name: same boot, other process numbers."""
    host, place, *_ = this_owner().split(" ")
    return f"{host} {place}0 1 {name}"


def test_trials_of_an_equal_host_are_left_alone_as_long_as_their_owner_gives_signs():
    now = [0.0]
    mine = filled(POINTS[:2], owner=elsewhere("1"), clock=lambda: now[0])
    other = make_queue(mine.storage, owner=elsewhere("2"), clock=lambda: now[0])
    claims = mine.claim(), other.claim()
    for _ in range(3 * LOST_AFTER_SECONDS // BEAT_SECONDS):
        now[0] += BEAT_SECONDS
        for queue, claim in zip((mine, other), claims, strict=True):
            assert queue.beat(claim.trial)
            assert queue.watch() == 0
    assert [record.state for record in mine.records()] == ["running", "running"]


def test_a_trial_of_another_machine_is_lost_after_a_long_silence(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    queue = filled(POINTS[:1], clock=lambda: now[0])
    claim = owned_by(queue, elsewhere("1")).claim()
    monkeypatch.setattr(time, "time", lambda: -now[0])  # a clock that is set back
    assert queue.recover() == 0
    assert queue.undecided() == 1
    now[0] += LOST_AFTER_SECONDS - 1
    assert queue.recover() == 0
    claim.trial.set_user_attr("beat", "another")
    assert queue.recover() == 0
    assert queue.undecided() == 0
    now[0] += LOST_AFTER_SECONDS - 1
    assert queue.recover() == 0
    now[0] += 2
    assert queue.recover() == 1
    assert not owned_by(queue, elsewhere("1")).beat(claim.trial)  # it hears that it lost it
    assert numbers(queue, "waiting") == [1]


def _claim_and_die(folder: Path, moment: Any) -> None:
    queue = opened(None, folder)
    claim = queue.claim()
    moment.set()
    time.sleep(60)
    queue.finish(claim, [0.0])


def test_a_killed_process_s_trial_comes_back_from_the_file(tmp_path: Path):
    queue = opened(None, tmp_path)
    queue.fill(POINTS[:2])
    context = multiprocessing.get_context("fork")
    moment = context.Event()
    child = context.Process(target=_claim_and_die, args=(tmp_path, moment))
    child.start()
    assert moment.wait(60)
    assert queue.recover() == 0
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert queue.recover() == 1
    assert [claim.number for claim in iter(queue.claim, None)] == [1, 2]
