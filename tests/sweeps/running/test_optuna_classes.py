"""Optuna's samplers and pruners, named as Lightning's callbacks are."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.running.optuna_classes import build_pruner, build_sampler
from lightning_ss2a.sweeps.space import Parameter
from tests.sweeps.running.coordinators import make_sweep

RANGES = {"model.x": Parameter(low=0.0, high=1.0), "model.y": Parameter(choices=["a", [1]])}


def sampler(folder: Path, spec: Any, **options: Any) -> Any:
    return build_sampler(make_sweep(folder, sampler=spec, trials=2, parameters=RANGES, **options))


def spec(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


@pytest.mark.parametrize("name", ["TPESampler", "RandomSampler", "GPSampler", "QMCSampler", "NSGAIISampler"])
def test_samplers(tmp_path: Path, name: str):
    for given in (name, f"optuna.samplers.{name}", {"class_path": name}):
        assert type(sampler(tmp_path, given)) is getattr(optuna.samplers, name)
    assert type(build_sampler(make_sweep(tmp_path))).__name__ == "RandomSampler"  # of a grid, never asked


def test_a_sampler_draws_the_same_from_the_same_seed(tmp_path: Path):
    sweep = make_sweep(tmp_path, sampler="TPESampler", trials=2, parameters=RANGES)

    def draw(given: Any) -> list[dict]:
        study = optuna.create_study(sampler=sampler(tmp_path, given))
        return [sweep.space.suggest(study.ask()) for _ in range(5)]

    assert draw("TPESampler") == draw("TPESampler") == draw(spec("TPESampler", seed=0))
    assert draw("TPESampler") != draw(spec("TPESampler", seed=1))


def test_arguments_of_samplers(tmp_path: Path):
    assert sampler(tmp_path, "TPESampler", workers=2)._constant_liar
    assert not sampler(tmp_path, "TPESampler")._constant_liar
    given = sampler(tmp_path, spec("TPESampler", n_startup_trials=3, constant_liar=True))
    assert given._constant_liar
    assert given._n_startup_trials == 3
    nested = sampler(tmp_path, spec("PartialFixedSampler", fixed_params={"model.x": 0.5}, base_sampler="RandomSampler"))
    assert type(nested._base_sampler) is optuna.samplers.RandomSampler


def test_pruners():
    assert type(build_pruner(None)) is optuna.pruners.NopPruner
    pruner = build_pruner(spec("optuna.pruners.PercentilePruner", percentile=25.0, n_warmup_steps=4))
    assert (type(pruner), pruner._n_warmup_steps) == (optuna.pruners.PercentilePruner, 4)
    wrapped = build_pruner(spec("PatientPruner", wrapped_pruner=spec("MedianPruner"), patience=2))
    assert type(wrapped._wrapped_pruner) is optuna.pruners.MedianPruner


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("TPESampeler", "sampler: there is no class TPESampeler in optuna.samplers; did you mean TPESampler?"),
        ("optuna.samplers.Tpes", "sampler: there is no class Tpes in optuna.samplers; "),
        ("optuna.pruners.MedianPruner", "sampler: Import path optuna.pruners.MedianPruner does not correspond"),
        (spec("TPESampler", seeed=1), "sampler: TPESampler has no argument seeed; did you mean seed?"),
        (spec("TPESampler", n_startup_trials="many"), "sampler: .*n_startup_trials.* Got value: many"),
        ({"init_args": {}}, "sampler: "),
        ("CmaEsSampler", "sampler CmaEsSampler: No module named 'cmaes'"),
    ],
)
def test_what_is_no_sampler(tmp_path: Path, given: Any, message: str):
    with pytest.raises(InputError, match=message) as error:
        sampler(tmp_path, given)
    assert "\n" not in str(error.value)
