"""Arguments of the runs that make up a trial."""

from pathlib import Path

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.definition import Base
from lightning_ss2a.sweeps.prepare import Step
from lightning_ss2a.sweeps.running.trial_runs import Runs, output_to, step_arguments
from lightning_ss2a.sweeps.space import Parameter
from tests.sweeps.running.coordinators import make_sweep


def test_options_win_in_this_order_base_overrides_repeats_parameters(tmp_path: Path):
    base = Base(str(tmp_path / "base.yaml"), {"model.a": 1, "model.b": 1, "data.text": "{size} of {seed}"}, {"size": 3})
    settings = {"small": {"model.b": [1, None], "model.c": "{size}"}}
    parameters = {"model.x": Parameter(choices=[[1, 2], True]), "scale": Parameter(settings=settings)}
    sweep = make_sweep(
        tmp_path, base="a", bases={"a": base}, overrides={"model.a": 2}, parameters=parameters, seeds=[5]
    )
    runs = Runs(sweep)
    options = runs.options({"model.x": "[1, 2]", "scale": "small"}, runs.repeats[0])
    assert options == [
        "-c", f"{tmp_path}/base.yaml", "--model.a=2", "--model.b=[1, null]", "--data.text=3 of 5",
        "--seed_everything=5", "--model.x=[1, 2]", "--model.c=3",
    ]  # fmt: skip


def test_placeholders_are_filled_within_lists_and_mappings(tmp_path: Path):
    runs = Runs(make_sweep(tmp_path, overrides={"data.x": [{"file": "{seed}.npz"}, 1]}))
    assert '--data.x=[{"file": "0.npz"}, 1]' in runs.options({}, runs.repeats[0])
    with pytest.raises(InputError, match=r"overrides.data.x: \{fold\} stands for nothing"):
        Runs(make_sweep(tmp_path, overrides={"data.x": [{"file": "{fold}.npz"}]}))


def test_a_run_s_output_goes_to_its_own_folder(tmp_path: Path):
    sweep = make_sweep(tmp_path)
    runs = Runs(sweep)
    arguments = runs.arguments({"model.x": 2}, runs.repeats[0], "trials/0007")
    assert arguments[0] == "fit"
    assert arguments[-3:] == ["--trainer.enable_progress_bar=false", *output_to(sweep.root / "trials/0007", "seed_0")]
    assert runs.log(runs.repeats[0], "trials/0007") == f"{sweep.root}/trials/0007/seed_0/output.log"
    assert f"--trainer.default_root_dir={sweep.root}/trials/0007/seed_0" in arguments


def test_points_of_a_grid_and_of_a_sampler(tmp_path: Path):
    assert Runs(make_sweep(tmp_path, trials=2)).points() == [{"model.x": 1}, {"model.x": 2}]
    sampled = make_sweep(tmp_path, sampler="TPESampler", trials=3, first=[{"model.x": 2}])
    assert Runs(sampled).points() == [{"model.x": 2}, {}, {}]
    more_than_trials = make_sweep(tmp_path, sampler="TPESampler", trials=1, first=[{"model.x": 2}, {"model.x": 3}])
    assert Runs(more_than_trials).points() == [{"model.x": 2}]


def test_steps_that_only_some_choice_needs_are_done(tmp_path: Path):
    prepare = {"world": "ss2a shards simulate {output}", "unused": "ss2a shards pack {output}"}
    parameters = {"data.datasets": Parameter(choices=["pairs", "{world}"])}
    runs = Runs(make_sweep(tmp_path, prepare=prepare, parameters=parameters))
    assert [step.name for step in runs.steps(runs.repeats[0])] == ["world"]


def test_the_output_of_training_goes_to_the_step_s_folder():
    training = Step("m", ("lightning", "fit"), Path("prepared/m-1"), ())
    quiet = "--trainer.enable_progress_bar=false"
    assert step_arguments(training) == ("lightning", "fit", quiet, *output_to(Path("prepared"), "m-1"))
    packing = Step("w", ("ss2a", "shards"), Path("prepared/w-1"), ())
    assert step_arguments(packing) == packing.arguments
