"""What a sweep does with what its workers answer."""

import itertools
import math
import os
import signal
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from optuna.trial import TrialState

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.base_files import ConfigFile
from lightning_ss2a.sweeps.definition import Base, Sweep
from lightning_ss2a.sweeps.running import queue as queue_module
from lightning_ss2a.sweeps.running.messages import (
    Alive,
    Answer,
    CheckTask,
    CommandTask,
    Done,
    Failed,
    Progress,
    RunTask,
    Task,
)
from lightning_ss2a.sweeps.running.owner import BEAT_SECONDS
from lightning_ss2a.sweeps.running.queue import MAKER
from lightning_ss2a.sweeps.space import Parameter
from tests.limits import largest_file
from tests.sweeps.running.coordinators import Work, learned, make_coordinator, make_sweep, option
from tests.sweeps.running.queues import make_queue, slots


def states(coordinator) -> list[str]:
    return [record.state for record in coordinator.queue.records()]


def failing(reason: str, at: str, times: int = 99, is_final: bool = False):
    """Workers whose runs of ``model.x=at`` fail so often."""
    left = [times]

    def work(task: Task) -> list[Answer]:
        if isinstance(task, RunTask) and option(task, "model.x") == at and left[0] > 0:
            left[0] -= 1
            return [Failed(reason, is_final)]
        return learned(task)

    return work


# ---------------------------------------------------------------- trials


def test_every_trial_runs_and_is_kept(tmp_path: Path):
    coordinator, lines = make_coordinator(make_sweep(tmp_path, workers=2))
    coordinator.run()
    records = coordinator.queue.records()
    assert [record.mean("val/x") for record in records] == [10, 20, 30]
    assert [record.metrics["seed_0"]["val/y"] for record in records] == [-10, -20, -30]
    assert coordinator.queue.study.best_trial.number == 2
    assert sorted(lines)[0] == "trial 0: val/x 10 (x 1)"
    assert {task.log for task in coordinator.pool.runs} == {
        f"{tmp_path}/sweeps/s/trials/000{n}/seed_0/output.log" for n in range(3)
    }


def test_repeats_run_one_after_the_other_and_count_by_their_mean(tmp_path: Path):
    sweep = make_sweep(tmp_path, seeds=[3, 5], repeats={"data.fold": [0, 1]}, overrides={"data.text": "{seed}-{fold}"})
    coordinator, _ = make_coordinator(sweep)
    coordinator.run()
    first = coordinator.pool.runs[:4]
    assert [option(task, "data.text") for task in first] == ["3-0", "3-1", "5-0", "5-1"]
    assert [option(task, "data.fold") for task in first] == ["0", "1", "0", "1"]
    record = coordinator.queue.records()[0]
    assert list(record.metrics) == ["seed_3-fold_0", "seed_3-fold_1", "seed_5-fold_0", "seed_5-fold_1"]
    assert record.mean("val/x") == 14.0
    assert record.seconds == 4.0


def test_a_sweep_that_is_done_starts_nothing(tmp_path: Path):
    make_coordinator(make_sweep(tmp_path))[0].run()
    coordinator, _ = make_coordinator(make_sweep(tmp_path))
    coordinator.run()
    assert coordinator.pool.tasks == []
    assert states(coordinator) == ["complete"] * 3


def test_more_trials_of_a_study_that_is_done(tmp_path: Path):
    ranges = {"parameters": {"model.x": Parameter(low=0.0, high=1.0)}, "sampler": "RandomSampler"}
    make_coordinator(make_sweep(tmp_path, trials=2, **ranges))[0].run()
    coordinator, _ = make_coordinator(make_sweep(tmp_path, trials=5, **ranges))
    coordinator.run()
    assert slots(coordinator.queue) == [0, 1, 2, 3, 4]
    assert len({record.point["model.x"] for record in coordinator.queue.records()}) == 5


def test_points_to_try_first(tmp_path: Path):
    ranges = {"parameters": {"model.x": Parameter(low=0.0, high=1.0)}, "sampler": "TPESampler"}
    sweep = make_sweep(tmp_path, trials=3, first=[{"model.x": 0.25}], **ranges)
    coordinator, _ = make_coordinator(sweep)
    coordinator.run()
    assert option(coordinator.pool.runs[0], "model.x") == "0.25"
    assert len(coordinator.pool.runs) == 3


def test_several_objectives(tmp_path: Path):
    sweep = make_sweep(tmp_path, metric=["val/x", "val/y"], direction=["maximize", "maximize"])
    coordinator, _ = make_coordinator(sweep)
    coordinator.run()
    assert [trial.values for trial in coordinator.queue.study.trials] == [[10, -10], [20, -20], [30, -30]]


# ---------------------------------------------------------------- failures


def test_a_trial_that_dies_is_tried_again_up_to_the_limit(tmp_path: Path):
    work = failing("its process died", at="2")
    coordinator, lines = make_coordinator(make_sweep(tmp_path, retries=2), work)
    coordinator.run()
    assert states(coordinator) == ["complete", "failed", "complete", "failed", "failed"]
    assert lines.count("trial 1 failed, queued again: its process died (x 2)") == 1
    assert "trial 4 failed: its process died (x 2)" in lines


def test_a_trial_that_dies_once_is_complete_in_the_end(tmp_path: Path):
    coordinator, _ = make_coordinator(make_sweep(tmp_path), failing("died", at="2", times=1))
    coordinator.run()
    assert slots(coordinator.queue) == [0, 1, 2]


def test_what_would_fail_again_is_not_tried_again(tmp_path: Path):
    work = failing("wrong width", at="2", is_final=True)
    coordinator, _ = make_coordinator(make_sweep(tmp_path, retries=5), work)
    coordinator.run()
    assert states(coordinator) == ["complete", "failed", "complete"]
    assert coordinator.queue.records()[1].reason == "wrong width"


@pytest.mark.parametrize(
    ("logged", "reason"),
    [({"val/x": math.nan}, "val/x is nan"), ({"val/x": -math.inf}, "val/x is -inf"), ({}, "never logged val/x")],
)
def test_a_number_that_is_none(tmp_path: Path, logged, reason):
    def work(task: Task) -> list[Answer]:
        return [Done(logged)] if isinstance(task, RunTask) and option(task, "model.x") == "1" else learned(task)

    coordinator, _ = make_coordinator(make_sweep(tmp_path), work)
    coordinator.run()
    assert states(coordinator) == ["failed", "complete", "complete"]
    assert coordinator.queue.records()[0].reason == reason


def test_a_failed_repeat_does_not_cost_those_that_are_done(tmp_path: Path):
    left = [1]

    def work(task: Task) -> list[Answer]:
        if isinstance(task, RunTask) and option(task, "seed_everything") == "1" and left[0]:
            left[0] = 0
            return [Failed("died", False)]
        return learned(task)

    coordinator, _ = make_coordinator(make_sweep(tmp_path, seeds=3), work)
    coordinator.run()
    assert slots(coordinator.queue) == [0, 1, 2]
    runs = [(option(task, "model.x"), option(task, "seed_everything")) for task in coordinator.pool.runs]
    assert len(runs) == 3 * 3 + 1
    assert [run for run in runs if run[0] == "1"] == [("1", "0"), ("1", "1"), ("1", "1"), ("1", "2")]


# ---------------------------------------------------------------- what is no trial's fault


def test_a_full_disk_ends_the_sweep_and_costs_no_trial_an_attempt(tmp_path: Path):
    sweep = make_sweep(tmp_path, retries=0)
    for _ in range(3):

        def work(task: Task) -> list[Answer]:
            full = isinstance(task, RunTask) and option(task, "model.x") == "2"
            return [Failed("no space left", False, is_outside=True)] if full else learned(task)

        coordinator, _ = make_coordinator(sweep, work)
        with pytest.raises(InputError, match=r"^trial \d: no space left; no trial's fault, it is queued again"):
            coordinator.run()
        assert coordinator.pool.is_stopped
    again, _ = make_coordinator(sweep)
    again.run()
    records = again.queue.records()
    assert [record.reason for record in records if record.state == "failed"] == ["no space left"] * 3
    assert slots(again.queue) == [0, 1, 2]


def test_a_run_that_died_of_a_disk_that_takes_nothing(tmp_path: Path):
    def work(task: Task) -> list[Answer]:
        return [Failed("its process died", False)] if isinstance(task, RunTask) else learned(task)

    sweep = make_sweep(tmp_path, retries=0)
    coordinator, _ = make_coordinator(sweep, work)
    with largest_file(1000), pytest.raises(InputError) as error:
        coordinator.run()
    assert f"trial 0: its process died; {sweep.root}: File too large; no trial's fault" in str(error.value)
    assert states(coordinator) == ["failed", "waiting", "waiting", "waiting"]


def test_running_trials_know_why_the_sweep_was_stopped(tmp_path: Path):
    def work(task: Task) -> list[Answer]:
        full = isinstance(task, RunTask) and option(task, "model.x") == "1"
        return [Failed("quota", False, is_outside=True)] if full else learned(task)

    coordinator, _ = make_coordinator(make_sweep(tmp_path, workers=2, seeds=2), work)
    with pytest.raises(InputError, match="quota"):
        coordinator.run()
    assert [record.reason for record in coordinator.queue.records()][:2] == [
        "quota",
        "the sweep was stopped: trial 0: quota; no trial's fault, it is queued again: mend it, "
        "then the same command goes on",
    ]


# ---------------------------------------------------------------- time


def hanging(*answers: Answer) -> Work:
    """Workers whose runs of ``model.x=2`` say this and then nothing."""

    def work(task: Task) -> list[Answer]:
        hangs = isinstance(task, RunTask) and option(task, "model.x") == "2"
        return list(answers) if hangs else learned(task)

    return work


@pytest.mark.parametrize(
    ("limits", "retries", "reasons"),
    [
        ({"max_trial_minutes": 10.0}, 2, ["took longer than max_trial_minutes, 10"]),
        ({"max_silent_minutes": 1.5}, 1, ["no step was done in max_silent_minutes, 1.5"] * 2),
        ({"max_trial_minutes": 10.0, "max_silent_minutes": 1.5}, 0, ["no step was done in max_silent_minutes, 1.5"]),
    ],
)
def test_a_trial_that_hangs_is_ended(tmp_path: Path, limits, retries: int, reasons: list[str]):
    now = [0.0]
    sweep = make_sweep(tmp_path, retries=retries, **limits)
    coordinator, lines = make_coordinator(sweep, hanging(), clock=lambda: now[0])
    coordinator.run(lambda: now.append(now.pop() + 20.0))
    records = coordinator.queue.records()
    assert [record.reason for record in records if record.state == "failed"] == reasons
    assert slots(coordinator.queue) == [0, 2]
    assert coordinator.pool.ended == [0] * len(reasons)
    assert f"trial 1 failed{', queued again' * (len(reasons) > 1)}: {reasons[0]} (x 2)" in lines


def test_a_trial_that_moves_on_is_not_silent(tmp_path: Path):
    now = [0.0]
    sweep = make_sweep(tmp_path, max_silent_minutes=1.0, max_trial_minutes=9.0)
    work = hanging(*[Alive()] * 20, Done({"val/x": 1.0}))
    coordinator, _ = make_coordinator(sweep, work, clock=lambda: now[0])
    coordinator.run(lambda: now.append(now.pop() + 20.0))
    assert states(coordinator) == ["complete"] * 3


def test_a_trial_that_others_took_for_lost_is_ended_here(tmp_path: Path):
    now = [0.0]
    coordinator, lines = make_coordinator(make_sweep(tmp_path), hanging(), clock=lambda: now[0])

    def take_away() -> None:
        now[0] += BEAT_SECONDS
        running = [item.claim.number for item in coordinator.running.values()]
        if running == [1] and now[0] > 10 * BEAT_SECONDS:
            coordinator.queue.give_back()  # as another would do that finds it lost
            coordinator.pool.work = learned

    coordinator.run(take_away)
    assert "trial 1: another process took it for lost; ended here" in lines
    assert slots(coordinator.queue) == [0, 1, 2]


def test_trials_elsewhere_are_waited_for_until_their_owner_gives_a_sign(tmp_path: Path):
    now = [0.0]
    coordinator, lines = make_coordinator(make_sweep(tmp_path))
    coordinator.queue._watch._clock = lambda: now[0]
    other = make_queue(coordinator.queue.storage, name="s", space=coordinator.sweep.space, owner="elsewhere")
    claim = other.claim()
    moments = itertools.count()

    def each_moment() -> None:
        now[0] += BEAT_SECONDS
        if next(moments) == 6:
            other.beat(claim.trial)

    coordinator.run(each_moment)
    assert states(coordinator) == ["running", "complete", "complete"]
    assert lines.count("waiting for a sign of whoever runs 1 trial elsewhere") == 1


# ---------------------------------------------------------------- pruning


def test_only_the_first_repeat_is_reported_and_a_bad_trial_is_stopped(tmp_path: Path):
    def work(task: Task) -> list[Answer]:
        if not isinstance(task, RunTask) or task.reported is None:
            return learned(task)
        value = float(option(task, "model.x"))
        return [*(Progress(step, value) for step in (1, 2, 3)), *learned(task)]

    choices = {"model.x": Parameter(choices=[3, 2, 1, 4])}
    pruner = {"class_path": "MedianPruner", "init_args": {"n_startup_trials": 2, "n_warmup_steps": 1}}
    sweep = make_sweep(tmp_path, parameters=choices, pruner=pruner, seeds=2)
    coordinator, lines = make_coordinator(sweep, work)
    coordinator.run()
    assert states(coordinator) == ["complete", "complete", "pruned", "complete"]
    assert [task.reported for task in coordinator.pool.runs] == ["val/x", None, "val/x", None, "val/x", "val/x", None]
    assert lines.count("trial 2: pruned") == 1
    assert coordinator.queue.study.trials[2].intermediate_values == {1: 1.0}
    assert coordinator.pool.stopped.count(True) == 1


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_running_trials_back(tmp_path: Path, number):
    coordinator, _ = make_coordinator(make_sweep(tmp_path, workers=2))
    before = signal.getsignal(signal.SIGTERM)

    def each_moment() -> None:
        os.kill(os.getpid(), number)

    of_the_process = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            coordinator.run(each_moment)
    finally:
        signal.signal(signal.SIGINT, of_the_process)
    assert coordinator.pool.is_stopped
    assert signal.getsignal(signal.SIGTERM) == before
    assert "running" not in states(coordinator)
    again, _ = make_coordinator(make_sweep(tmp_path, workers=2))
    again.run()
    assert slots(again.queue) == [0, 1, 2]
    assert not [task for task in again.pool.tasks if isinstance(task, CheckTask)]  # once a study


def test_no_trial_is_begun_after_the_time(tmp_path: Path):
    time = [0.0]
    coordinator, _ = make_coordinator(make_sweep(tmp_path, max_minutes=5.0), clock=lambda: time[0])
    coordinator.run(lambda: time.append(time.pop() + 200.0))
    assert states(coordinator) == ["complete", "complete", "waiting"]


def test_a_trial_that_died_as_it_was_taken_is_waited_for(tmp_path: Path):
    coordinator, _ = make_coordinator(make_sweep(tmp_path))
    coordinator.queue._watch._clock = itertools.count(step=queue_module.UNOWNED_SECONDS + 1).__next__
    first = coordinator.queue.study.trials[0]
    coordinator.queue.storage.set_trial_state_values(first._trial_id, TrialState.RUNNING)
    coordinator.run()
    assert slots(coordinator.queue) == [0, 1, 2]


# ---------------------------------------------------------------- before the first trial


def test_a_wrong_metric_is_told_before_anything_runs(tmp_path: Path):
    coordinator, _ = make_coordinator(make_sweep(tmp_path, metric="val/xx"))
    with pytest.raises(InputError, match=r"never logs val/xx; did you mean val/x\?"):
        coordinator.run()
    assert states(coordinator) == ["waiting"] * 3
    mended, _ = make_coordinator(make_sweep(tmp_path))
    mended.run()
    assert states(mended) == ["complete"] * 3


def test_a_base_that_does_not_train_is_told_before_anything_runs(tmp_path: Path):
    def work(task: Task) -> list[Answer]:
        return [Failed("no data", True)] if isinstance(task, CheckTask) else learned(task)

    coordinator, _ = make_coordinator(make_sweep(tmp_path), work)
    with pytest.raises(InputError, match=r"no data \(nothing was run; all output: .*check/output.log\)"):
        coordinator.run()
    assert coordinator.pool.runs == []


def test_the_check_builds_every_kind_of_configuration(tmp_path: Path):
    coordinator, _ = make_coordinator(make_sweep(tmp_path))
    coordinator.run()
    check = coordinator.pool.tasks[0]
    assert isinstance(check, CheckTask)
    assert [next(part for part in parts if "model.x" in part) for parts in check.configurations] == [
        "--model.x=1", "--model.x=2", "--model.x=3"
    ]  # fmt: skip


def test_a_folder_of_something_else(tmp_path: Path):
    (tmp_path / "sweeps" / "s").mkdir(parents=True)
    (tmp_path / "sweeps" / "s" / "thesis.tex").touch()
    with pytest.raises(InputError, match="holds files of something else"):
        make_coordinator(make_sweep(tmp_path))
    assert [path.name for path in (tmp_path / "sweeps" / "s").iterdir()] == ["thesis.tex"]
    (tmp_path / "sweeps" / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        make_coordinator(make_sweep(tmp_path, name="file"))


def test_a_folder_whose_study_is_in_another_storage(tmp_path: Path):
    make_coordinator(make_sweep(tmp_path))[0].run()
    with pytest.raises(InputError, match="holds a sweep that the storage does not know"):
        make_coordinator(make_sweep(tmp_path, storage=str(tmp_path / "other.journal")))


def test_a_study_of_another_question(tmp_path: Path):
    make_coordinator(make_sweep(tmp_path))[0].run()
    before = (tmp_path / "sweeps/s/sweep.yaml").read_text()
    with pytest.raises(InputError, match="with other direction, seeds"):
        make_coordinator(make_sweep(tmp_path, seeds=2, direction="minimize"))
    assert (tmp_path / "sweeps/s/sweep.yaml").read_text() == before
    assert make_coordinator(make_sweep(tmp_path, retries=3))[0].queue.study.user_attrs[MAKER]


def test_the_sweep_file_says_what_the_sweep_was(tmp_path: Path):
    parameters = {
        "model.x": Parameter(choices=[1, None, [2, 3], "some text", False]),
        "model.rate": Parameter(low=1e-5, high=0.1, log=True, when={"model.x": [1, None]}),
        "size": Parameter(settings={"small": {"model.width": 3, "model.deep": None}, "large": {"model.width": 9}}),
    }
    sweep = make_sweep(
        tmp_path,
        base="a",
        bases={"a": Base(str(tmp_path / "base.yaml"), {"data.y": "{deep}"}, {"deep": "[3]"})},
        parameters=parameters,
        sampler="TPESampler",
        trials=3,
        first=[{"model.x": [2, 3]}],
        overrides={"data.z": None, "data.text": "{fold}"},
        repeats={"data.fold": [0, 1]},
        metric=["val/x", "val/y"],
        direction=["maximize", "minimize"],
    )
    make_coordinator(sweep)
    assert read_again(sweep) == sweep


def read_again(sweep: Sweep) -> Sweep:
    """What the file in the study's folder says."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Sweep, as_group=False)
    parser.add_argument("-c", action="config")
    read = parser.instantiate(parser.parse_args(["-c", str(sweep.root / "sweep.yaml")]))
    read.pop("c")
    return Sweep(**vars(read))


def test_the_sweep_file_names_the_base_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for names in (
        {"base": ConfigFile("base.yaml")},
        {"base": ConfigFile("a"), "bases": {"a": Base([ConfigFile("base.yaml")])}},
    ):
        sweep = make_sweep(tmp_path, **names, folder="runs", name=f"s{len(names)}")
        make_coordinator(sweep)
        assert read_again(sweep).config_files() == sweep.config_files() == [Path("base.yaml")]
        assert read_again(sweep).question() == sweep.question()


# ---------------------------------------------------------------- steps that trials build on


def test_steps_run_once_for_what_they_depend_on(tmp_path: Path):
    prepare = {"world": "ss2a shards simulate {output} --seed={seed}", "unused": "ss2a shards simulate {output}"}
    options = {"prepare": prepare, "overrides": {"data.datasets": "{world}"}, "seeds": 2}
    coordinator, lines = make_coordinator(make_sweep(tmp_path, **options))
    coordinator.run()
    steps = [task for task in coordinator.pool.tasks if isinstance(task, CommandTask)]
    assert [step.arguments[-1] for step in steps] == ["--seed=0", "--seed=1"]
    output = steps[0].arguments[3]
    assert option(coordinator.pool.runs[0], "data.datasets") == output
    assert Path(f"{output}.done").exists()
    assert "preparing: world (1 in all)" in lines
    other, _ = make_coordinator(make_sweep(tmp_path, name="other", **options))
    other.run()
    assert not [task for task in other.pool.tasks if isinstance(task, CommandTask)]


def test_a_step_that_fails_ends_the_sweep(tmp_path: Path):
    def work(task: Task) -> list[Answer]:
        return [Failed("disk full", False)] if isinstance(task, CommandTask) else learned(task)

    options = {"prepare": {"world": "ss2a shards simulate {output}"}, "overrides": {"data.datasets": "{world}"}}
    coordinator, _ = make_coordinator(make_sweep(tmp_path, **options), work)
    with pytest.raises(InputError, match=r"prepare.world: disk full \(all output: .*log\)"):
        coordinator.run()
    assert coordinator.pool.runs == []
    mended, _ = make_coordinator(make_sweep(tmp_path, **options))
    mended.run()
    assert slots(mended.queue) == [0, 1, 2]
