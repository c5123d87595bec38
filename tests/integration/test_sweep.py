"""Whole sweeps: they survive what happens to them, and a trial is an ordinary run."""

import shlex
import signal
import time
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ss2a.sweeps.running.queue import LOST
from tests.integration.sweeps import (
    COSINE,
    GRID,
    KIND,
    SLEEP,
    complete,
    kill,
    lightning_fit,
    start,
    study,
    sweep,
    wait_for_no_workers,
    wait_for_trials,
    write_base,
    write_sweep,
)
from tests.limits import largest_file

SMALL = {
    **GRID,
    "parameters": {
        "model.optimization.learning_rate": {"choices": [1e-4, 1e-3]},
        "model.manifold.dropout": {"choices": [0.2]},
    },
}


def values(folder: Path) -> list[tuple[dict, list[float]]]:
    return [(trial.params, trial.values) for trial in complete(folder)]


def metrics_in(folder: Path) -> dict[str, list[float]]:
    """Validation metrics of a run, from its TensorBoard log, as they are on disk."""
    log = EventAccumulator(str(folder)).Reload()
    tags = [tag for tag in log.Tags()["scalars"] if tag.startswith("val/")]
    return {tag: [event.value for event in log.Scalars(tag)] for tag in tags}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid of 24 points by two workers."""
    folder = write_base(tmp_path_factory.mktemp("undisturbed"))
    write_sweep(folder, overrides={SLEEP: 0.1})
    sweep(folder, "--workers=2")
    return folder


def test_a_sweep_ends_with_its_results(tmp_path: Path):
    folder = write_base(tmp_path)
    write_sweep(folder, SMALL)
    printed = sweep(folder)
    trials = complete(folder)
    assert [trial.params["model.optimization.learning_rate"] for trial in trials] == [1e-4, 1e-3]
    root = folder / "runs/sweeps/grid"
    assert {"best.yaml", "trials.csv", "runs.csv", "figures", "sweep.yaml"} <= {path.name for path in root.iterdir()}
    assert "2 of 2 done, 0 running" in printed
    best = study(folder).best_trial
    assert yaml.safe_load((root / "best.yaml").read_text())["model"]["init_args"]["optimization"][
        "learning_rate"
    ] == pytest.approx(best.params["model.optimization.learning_rate"])
    assert metrics_in(root / f"trials/{best.number:04d}/seed_0")[COSINE][-1] == pytest.approx(best.value, abs=1e-7)
    wait_for_no_workers(folder)


@pytest.mark.slow
def test_a_sweep_that_is_killed_three_times_ends_as_one_that_is_not(undisturbed: Path, tmp_path: Path):
    folder = write_base(tmp_path)
    write_sweep(folder, overrides={SLEEP: 0.1})
    process = start(folder, "--workers=2")
    wait_for_trials(process, folder, 3)
    kill(process)
    wait_for_no_workers(folder)
    process = start(folder, "--workers=2")
    time.sleep(4)  # while it begins: maybe before, maybe after its workers are there
    kill(process)
    process = start(folder, "--workers=2")
    wait_for_trials(process, folder, 14)
    kill(process)
    wait_for_no_workers(folder)
    printed = sweep(folder, "--workers=2")
    assert "24 of 24 done, 0 running" in printed
    trials = complete(folder)
    assert [trial.user_attrs["slot"] for trial in trials] == list(range(24))
    assert values(folder) == values(undisturbed)
    best, expected = study(folder).best_trial, study(undisturbed).best_trial
    assert (best.params, best.value) == (expected.params, expected.value)
    others = [trial for trial in study(folder).trials if trial.state != TrialState.COMPLETE]
    assert {trial.state for trial in others} == {TrialState.FAIL}
    assert {trial.user_attrs["reason"] for trial in others} == {LOST}
    assert all(trial.user_attrs["attempt"] == 0 for trial in trials)
    wait_for_no_workers(folder)


@pytest.mark.slow
def test_a_signal_puts_running_trials_back(tmp_path: Path):
    folder = write_base(tmp_path)
    write_sweep(folder, SMALL, overrides={SLEEP: 3.0})
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(folder, "--workers=2")
        until = time.monotonic() + 120
        trials: list[TrialState] = []
        while trials.count(TrialState.RUNNING) < 2:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.2)
            if (folder / "runs/sweeps/grid/sweep.yaml").exists():
                trials = [trial.state for trial in study(folder).trials]
        process.send_signal(number)
        printed, _ = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "stopped; the same command goes on (0 of 2 done, 0 running" in printed
        assert "Traceback" not in printed
        states = [trial.state for trial in study(folder).trials]
        assert states.count(TrialState.WAITING) == 2
        assert TrialState.RUNNING not in states
        wait_for_no_workers(folder)
    assert {trial.user_attrs["attempt"] for trial in study(folder).trials} == {0}


@pytest.mark.slow
def test_trials_that_cannot_be_written_or_hang(tmp_path: Path):
    folder = write_base(tmp_path)
    base = (folder / "base.yaml").read_text()
    (folder / "base.yaml").write_text(base.replace("enable_checkpointing: false", "enable_checkpointing: true"))
    points = {"model.manifold.width": {"choices": [12, 4000]}, SLEEP: {"choices": [0.0, 1000.0]}}
    write_sweep(folder, parameters=points, retries=0, max_silent_minutes=0.5)
    with largest_file(2_000_000):  # the wide model's checkpoint is larger
        printed = sweep(folder, status=2)
    (line,) = [line for line in printed.splitlines() if "error" in line]
    assert "File too large" in line
    assert "no trial's fault, it is queued again" in line
    assert "2 of 4 done, 0 running, 2 failed" in sweep(folder)
    failed = [trial for trial in study(folder).trials if trial.state == TrialState.FAIL]
    reasons = [trial.user_attrs["reason"] for trial in failed]
    assert reasons.count("no step was done in max_silent_minutes, 0.5") == 2
    assert sum("File too large" in reason for reason in reasons) == 1
    assert {trial.user_attrs["attempt"] for trial in study(folder).trials} == {0}
    wait_for_no_workers(folder)


@pytest.mark.slow
def test_a_file_that_is_changed_after_its_sweep_was_killed_in_its_check(tmp_path: Path):
    folder = write_base(tmp_path)
    write_sweep(folder, {**SMALL, "seeds": 5})
    process = start(folder)
    while not (folder / "runs/sweeps/grid/sweep.yaml").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    kill(process)
    write_sweep(folder, SMALL)
    assert "2 of 2 done, 0 running" in sweep(folder)
    assert len(study(folder).trials) == 2


@pytest.mark.slow
def test_two_sweeps_of_one_file_share_its_trials(undisturbed: Path, tmp_path: Path):
    folder = write_base(tmp_path)
    write_sweep(folder, overrides={SLEEP: 0.1})
    both = [start(folder), start(folder)]
    for process in both:
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed
    assert values(folder) == values(undisturbed)
    assert len(study(folder).trials) == len({trial.number for trial in study(folder).trials}) >= 24


@pytest.mark.slow
def test_a_trial_s_configuration_gives_its_numbers_again(undisturbed: Path):
    best = study(undisturbed).best_trial
    root = undisturbed / "runs/sweeps/grid"
    run = root / f"trials/{best.number:04d}/seed_0"
    for config, output in ((run / "config.yaml", "again"), (root / "best.yaml", "best")):
        lightning_fit(undisturbed, config, output)
        assert metrics_in(undisturbed / output / "alone") == metrics_in(run)


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_its_configurations_run(undisturbed: Path, tmp_path: Path):
    folder = write_base(tmp_path)
    write_sweep(folder)
    before = sorted(folder.rglob("*"))
    printed = sweep(folder, "--dry-run")
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts] == before
    documents = printed.split("\n---\n")
    assert len(documents) == 3
    (folder / "third.yaml").write_text(documents[2])
    lightning_fit(folder, Path("third.yaml"), "third")
    expected = undisturbed / "runs/sweeps/grid/trials/0002/seed_0"
    assert metrics_in(folder / "third/alone") == metrics_in(expected)
    command = shlex.split(documents[0].splitlines()[1].removeprefix("# "))
    assert command[:4] == ["lightning", "fit", "-c", "base.yaml"]


@pytest.mark.slow
def test_another_question_does_not_go_on_with_a_study(undisturbed: Path):
    printed = sweep(undisturbed, "--direction=minimize", status=2)
    assert "the study grid is of another sweep, with other direction; take another --name" in printed
    printed = sweep(undisturbed, "--retries=3", "--trials=24")
    assert "24 of 24 done" in printed


@pytest.mark.slow
def test_a_sampler_goes_on_where_it_was(tmp_path: Path):
    folder = write_base(tmp_path)
    ranges = {"model.optimization.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    write_sweep(folder, {**GRID, "sampler": "TPESampler", "trials": 2, "parameters": ranges, "seeds": 2})
    sweep(folder)
    sweep(folder, "--trials=4")
    trials = complete(folder)
    assert len({trial.params["model.optimization.learning_rate"] for trial in trials}) == len(trials) == 4
    for trial in trials:
        assert set(trial.user_attrs["metrics"]) == {"seed_0", "seed_1"}
        runs = [metrics[COSINE] for metrics in trial.user_attrs["metrics"].values()]
        assert runs[0] != runs[1]
        assert trial.value == pytest.approx(sum(runs) / 2)


@pytest.mark.slow
def test_what_goes_wrong_in_a_trial_ends_that_trial_only(tmp_path: Path):
    folder = write_base(tmp_path)
    # Five that die one after the other: workers can work here all the same.
    kinds = ["none", "killed", "memory", "torch", "wrong", "nan"]
    parameters = {KIND: {"choices": kinds}, "model.manifold.dropout": {"choices": [0.1, 0.2]}}
    write_sweep(folder, {**GRID, "parameters": parameters})
    printed = sweep(folder)
    ended = study(folder).get_trials(states=[TrialState.FAIL])
    tries = {kind: [t.user_attrs["reason"] for t in ended if t.params[KIND] == kind] for kind in kinds}
    assert {kind: len(reasons) for kind, reasons in tries.items()} == {
        "none": 0, "killed": 4, "memory": 4, "torch": 4, "wrong": 2, "nan": 2
    }  # fmt: skip
    assert set(tries["killed"]) == {"its process died (signal 9, as the system does where memory ends)"}
    assert set(tries["memory"]) == {"MemoryError: no memory for 12 tensors"}
    assert set(tries["torch"]) == {"OutOfMemoryError: CUDA out of memory. Tried to allocate 12 GiB"}
    assert set(tries["wrong"]) == {"ValueError: a width of 3 makes no sense"}
    assert set(tries["nan"]) == {f"{COSINE} is nan"}
    assert len(complete(folder)) == 2
    assert "2 of 12 done, 0 running, 10 failed" in printed


@pytest.mark.slow
def test_a_trial_that_dies_once_is_done_in_the_end(tmp_path: Path):
    folder = write_base(tmp_path)
    file = "trainer.callbacks.Trouble.file"
    write_sweep(folder, {**GRID, "parameters": {KIND: {"choices": ["none", "killed"]}}, "overrides": {file: "been"}})
    sweep(folder)
    assert [trial.user_attrs["attempt"] for trial in complete(folder)] == [0, 1]
    assert complete(folder)[0].values == complete(folder)[1].values


@pytest.mark.slow
def test_processes_that_die_in_a_row_do_not_end_the_sweep(tmp_path: Path):
    folder = write_base(tmp_path)
    dropouts = [0.0, 0.1, 0.2, 0.3, 0.4]
    parameters = {KIND: {"choices": ["none", "killed"]}, "model.manifold.dropout": {"choices": dropouts}}
    write_sweep(folder, {**GRID, "parameters": parameters, "retries": 0})
    assert "5 of 10 done, 0 running, 5 failed" in sweep(folder)


@pytest.mark.slow
def test_a_trial_behind_the_others_is_stopped(tmp_path: Path):
    folder = write_base(tmp_path)
    rates = {"model.optimization.learning_rate": {"choices": [1e-2, 3e-3, 1e-6, 2e-2]}}
    pruner = {"class_path": "MedianPruner", "init_args": {"n_startup_trials": 2, "n_warmup_steps": 1}}
    write_sweep(
        folder, {**GRID, "pruner": pruner, "parameters": rates, "seeds": 2, "overrides": {"trainer.max_epochs": 6}}
    )
    printed = sweep(folder)
    trials = study(folder).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert "trial 2: pruned" in printed
    assert sorted(trials[0].intermediate_values) == [1, 2, 3, 4, 5, 6]  # the first repeat's, no other's
    assert len(trials[2].intermediate_values) < 6
    assert not (folder / "runs/sweeps/grid/trials/0002/seed_1").exists()


@pytest.mark.slow
def test_other_tools_of_optuna_open_the_storage(undisturbed: Path):
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{undisturbed}/runs/sweeps/grid/study.db")
    assert (summary.study_name, summary.n_trials) == ("grid", 24)
    trials = study(undisturbed).trials
    assert len({tuple(trial.params.items()) for trial in trials}) == 24
    assert all(trial.state == TrialState.COMPLETE and trial.value is not None for trial in trials)
    assert study(undisturbed).metric_names == [COSINE]
