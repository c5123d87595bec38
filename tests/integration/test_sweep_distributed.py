"""Two gloo ranks inside a trial: one set of parameters, one result, no process left."""

import re
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.sweeps import (
    COSINE,
    GRID,
    KIND,
    SLEEP,
    complete,
    kill,
    start,
    study,
    sweep,
    wait_for_no_workers,
    workers_in,
    write_base,
    write_sweep,
)

TWO = {"trainer.devices": 2, "trainer.strategy": "ddp"}


@pytest.mark.slow
def test_two_ranks_are_one_trial(tmp_path: Path):
    folder = write_base(tmp_path)
    rates = {"model.optimization.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    write_sweep(folder, {**GRID, "sampler": "RandomSampler", "trials": 3, "parameters": rates, "overrides": TWO})
    printed = sweep(folder)
    assert "3 of 3 done" in printed
    trials = complete(folder)
    assert len(study(folder).trials) == 3
    for trial in trials:
        (config,) = (folder / f"runs/sweeps/grid/trials/{trial.number:04d}").rglob("config.yaml")
        options = yaml.safe_load(config.read_text())
        assert (
            options["model"]["init_args"]["optimization"]["learning_rate"]
            == trial.params["model.optimization.learning_rate"]
        )
        assert int(options["trainer"]["devices"]) == 2
        log = (config.parent / "output.log").read_text()
        assert len(re.findall(r"GLOBAL_RANK: [01], MEMBER: [12]/2", log)) == 2
    assert len({trial.value for trial in trials}) == 3
    wait_for_no_workers(folder)


@pytest.mark.slow
def test_both_ranks_stop_together(tmp_path: Path):
    folder = write_base(tmp_path)
    rates = {"model.optimization.learning_rate": {"choices": [1e-2, 3e-3, 1e-6, 2e-2]}}
    pruner = {"class_path": "MedianPruner", "init_args": {"n_startup_trials": 2, "n_warmup_steps": 1}}
    overrides = {**TWO, "trainer.max_epochs": 5}
    write_sweep(folder, {**GRID, "pruner": pruner, "parameters": rates, "overrides": overrides})
    sweep(folder)
    trials = study(folder).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert sorted(trials[0].intermediate_values) == [1, 2, 3, 4, 5]
    assert len(trials[2].intermediate_values) < 5
    assert trials[0].value == pytest.approx(trials[0].intermediate_values[5])
    wait_for_no_workers(folder)


@pytest.mark.slow
def test_a_rank_that_dies_takes_its_trial_along_and_no_other(tmp_path: Path):
    folder = write_base(tmp_path)
    write_sweep(
        folder, {**GRID, "parameters": {KIND: {"choices": ["none", "wrong", "killed"]}}, "overrides": TWO, "retries": 0}
    )
    printed = sweep(folder, "--metric", COSINE)
    assert "1 of 3 done, 0 running, 2 failed" in printed
    wait_for_no_workers(folder)


@pytest.mark.slow
def test_no_rank_outlives_a_sweep_that_is_killed(tmp_path: Path):
    folder = write_base(tmp_path)
    parameters = {"model.manifold.dropout": {"choices": [0.1]}}
    write_sweep(folder, {**GRID, "parameters": parameters, "overrides": {**TWO, SLEEP: 5.0}})
    process = start(folder)
    until = time.monotonic() + 120
    while len(workers_in(folder)) < 2 or not (folder / "runs/sweeps/grid/trials").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.2)
    kill(process)
    wait_for_no_workers(folder)
    assert "1 of 1 done" in sweep(folder)
