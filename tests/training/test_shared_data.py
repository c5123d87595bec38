"""Runs of one process that share their data give the numbers that each gives alone, to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_ss2a.training.validation.baselines as statistics
from lightning_ss2a.data.loading.shared_cache import SharedCache, use_shared_cache
from lightning_ss2a.data.loading.tensors import RaggedRows
from tests.manifold_examples import (
    Recorder,
    make_data,
    make_module,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)
from tests.stage_examples import STAGES, fit_stage, make_stage, write_materials


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_materials(tmp_path_factory.mktemp("materials"))


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list:
    """The statistics that were fitted, in order."""
    results, fit = [], statistics.fit_training_statistics

    def counted(*arguments: Any) -> statistics.TrainingStatistics:
        results.append(fit(*arguments))
        return results[-1]

    monkeypatch.setattr(statistics, "fit_training_statistics", counted)
    return results


def run(dataset: str, folder: Path, **data_options: Any) -> tuple[dict, list, dict]:
    """Training terms, validation metrics and weights of a short run."""
    recorder, module = Recorder(), make_module()
    trainer = make_trainer(folder, callbacks=[recorder])
    trainer.fit(module, datamodule=make_data(dataset, **data_options))
    return recorder.training, recorder.validation, parameters_of(module.manifold)


def same_run(one: tuple, other: tuple) -> bool:
    return one[:2] == other[:2] and all(torch.equal(x, other[2][name]) for name, x in one[2].items())


def contents(cache: SharedCache) -> list[torch.Tensor]:
    """Copies of all cached tensors, in an order of their own."""
    tensors = []
    for _, entry in sorted(cache._entries.items(), key=lambda item: str(item[0])):
        is_table = hasattr(entry.value, "rows")
        columns = (entry.value.rows if is_table else entry.value.state_dict()).values()
        ragged = [part for c in columns if isinstance(c, RaggedRows) for part in (c.values, c.offsets)]
        tensors += [x.clone() for x in [*columns, *ragged] if isinstance(x, torch.Tensor)]
    return tensors


@pytest.mark.parametrize("residency", ["memory", "device", "stream"])
def test_runs_with_shared_data_are_those_without(tmp_path: Path, fitted: list, residency: str):
    dataset = write_learnable_pairs(tmp_path / "pairs")
    alone = run(dataset, tmp_path, residency=residency)
    fitted.clear()
    with use_shared_cache():
        runs = [run(dataset, tmp_path, residency=residency) for _ in range(2)]
    assert all(same_run(alone, one) for one in runs)
    assert len(fitted) == 1


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_writes_to_what_is_shared(materials, tmp_path: Path, name: str):
    torch.manual_seed(0)
    _, alone = fit_stage(name, materials, tmp_path, make_stage(name, materials))
    seen = []
    with use_shared_cache() as cache:
        for _ in range(2):
            torch.manual_seed(0)
            _, recorder = fit_stage(name, materials, tmp_path, make_stage(name, materials))
            assert (recorder.training, recorder.validation) == (alone.training, alone.validation)
            seen.append(contents(cache))
    assert len(seen[0]) == len(seen[1]) > 10
    assert all(map(torch.equal, *seen))


def test_options_of_data_in_turn(tmp_path: Path):
    dataset = write_learnable_pairs(tmp_path / "pairs")
    different = [{"rows_per_group": "one"}, {"evaluation_batch_size": 7}, {"shuffle_pairs": True}, {"batch_size": 6}]
    alone = [(options, run(dataset, tmp_path, **options)) for options in ({}, *different)]
    with use_shared_cache():
        for options, expected in 2 * alone:
            assert same_run(run(dataset, tmp_path, **options), expected), options


def test_baselines_are_fitted_anew_for_what_they_depend_on_only(tmp_path: Path, fitted: list):
    dataset, other = (write_learnable_pairs(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    with use_shared_cache():
        for options in ({}, {"batch_size": 6, "shuffle_pairs": True, "seed": 4}, {"rows_per_group": "one"}, {}):
            run(dataset, tmp_path, **options)
        assert len(fitted) == 2
        run(other, tmp_path)
        assert len(fitted) == 3
    run(dataset, tmp_path)
    assert len(fitted) == 4


def test_data_cached_by_a_validation_serve_a_fit(materials, tmp_path: Path):
    """Lightning validates in inference mode, whose tensors no gradient can need."""
    _, alone = fit_stage("translator", materials, tmp_path, make_stage("translator", materials))
    with use_shared_cache():
        trainer = make_trainer(tmp_path)
        trainer.validate(make_stage("translator", materials), make_data(materials["pairs"]), verbose=False)
        _, recorder = fit_stage("translator", materials, tmp_path, make_stage("translator", materials))
    assert (recorder.training, recorder.validation) == (alone.training, alone.validation)
