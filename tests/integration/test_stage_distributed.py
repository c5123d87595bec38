"""One process and two with the same global batch train the same stages and report the same numbers."""

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.distributed import run_distributed
from tests.manifold_examples import Recorder, largest_difference, make_data, make_trainer, parameters_of
from tests.stage_examples import STAGES, make_deterministic, make_stage, write_materials

ROWS = {"train": 83, "validation": 23}  # 10 batches of 8; validation: 5 batches of 5, 5, 5, 5, 3 rows
FEW = {"train": 83, "validation": 4}  # the second process gets an empty batch only
STEPS = 12
VARIANTS: dict[str, dict[str, Any]] = {
    "remixer": {"validate_cycle_mix": True},
    "translator": {"ccmr_alpha": 0.35},
}
ONE_BATCH = {"limit_val_batches": 1}  # where nothing is asked of the validations
TRAINERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped and accumulated": {"gradient_clip_val": 0.5, "accumulate_grad_batches": 3, "max_steps": 5} | ONE_BATCH,
    "graph": {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2, "max_steps": 6} | ONE_BATCH,
}
MODULES: dict[str, dict[str, Any]] = {"graph": {"step": "graph"}}
"""Options of the module that go with a trainer; nothing is compiled."""
FAST = ("remixer", "aggregation", "translator")
"""Cycle-Mix, ragged rows and a loss across ranks: the others do less of the same."""


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("data")
    return {"even": write_materials(folder / "even", ROWS), "few": write_materials(folder / "few", FEW)}


def strategy() -> dict[str, Any]:
    if not dist.is_initialized():
        return {}
    os.environ["LOCAL_RANK"] = str(dist.get_rank())  # Lightning then takes this process as its own
    return {"strategy": "ddp", "devices": dist.get_world_size()}


def train(module: Any, dataset: str, folder: str, **options: Any) -> dict[str, Any]:
    recorder = Recorder()
    plain = {"max_steps": STEPS, "max_epochs": -1, "val_check_interval": 5} | strategy()
    trainer = make_trainer(folder, callbacks=[recorder], **plain | options)
    with torch.compiler.set_stance("force_eager"):
        trainer.fit(module, datamodule=make_data(dataset, evaluation_batch_size=5))
    return {
        "parameters": parameters_of(module),
        "steps": trainer.global_step,
        "validation": recorder.validation,
        "training": recorder.training,
        "statistics": module.statistics.state_dict(),
        "unused": trainer.strategy._ddp_kwargs if dist.is_initialized() else {},
    }


def validate(module: Any, dataset: str, folder: str, **data: Any) -> list[dict[str, float]]:
    recorder = Recorder()
    trainer = make_trainer(folder, callbacks=[recorder], **strategy())
    trainer.validate(module, datamodule=make_data(dataset, **data), verbose=False)
    return recorder.validation


def train_and_validate(name: str, materials: dict[str, dict[str, str]], folder: str) -> dict[str, Any]:
    even, few = materials["even"], materials["few"]
    results: dict[str, Any] = {}
    options = {"schedule": "cosine", "warmup_steps": 3, **VARIANTS.get(name, {})}
    data = even[STAGES[name].data]
    for trainer, switches in TRAINERS.items():
        module = make_deterministic(name, even, **options, **MODULES.get(trainer, {}))
        results[trainer] = train(module, data, folder, **switches)
    results["sampled"] = train(make_stage(name, even), data, folder, max_steps=4, limit_val_batches=0)
    few_rows = few[STAGES[name].data]
    results["few"] = train(make_deterministic(name, few), few_rows, folder, max_steps=-1, max_epochs=1)
    untrained = make_stage(name, even, **VARIANTS.get(name, {}))
    results["validated"] = [validate(untrained, data, folder, evaluation_batch_size=size) for size in (5, 23)]
    return results


@pytest.fixture(
    scope="module", params=[name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in STAGES]
)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def one(name: str, materials, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train_and_validate(name, materials, str(tmp_path_factory.mktemp("one")))


@pytest.fixture(scope="module")
def two(name: str, materials, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_distributed(train_and_validate, name, materials, str(tmp_path_factory.mktemp("two")))


def moving(run: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All parameters but the biases of keys: a softmax over keys does not see them, and AdamW blows up rounding."""
    return {name: p for name, p in run["parameters"].items() if not name.endswith(("key.bias", "to_k.bias"))}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_parameters_are_those_of_one_process(name: str, trainer: str, materials, one: dict, two: list[dict]):
    alone, ranks = one[trainer], [rank[trainer] for rank in two]
    assert [run["steps"] for run in (alone, *ranks)] == [TRAINERS[trainer].get("max_steps", STEPS)] * 3
    assert [rank["unused"] for rank in ranks] == [{}, {}]  # no find_unused_parameters
    assert largest_difference(ranks[0]["parameters"], ranks[1]["parameters"]) == 0
    assert largest_difference(moving(alone), moving(ranks[0])) <= 1e-5
    before = parameters_of(make_deterministic(name, materials["even"]))
    assert largest_difference(alone["parameters"], before) > 3e-3
    assert largest_difference(alone["statistics"], ranks[1]["statistics"]) == 0


@pytest.mark.parametrize("trainer", TRAINERS)
def test_training_terms_are_those_of_the_global_batch(name: str, trainer: str, one: dict, two: list[dict]):
    alone, ranks = one[trainer]["training"], [rank[trainer]["training"] for rank in two]
    assert ranks[0] == ranks[1]
    assert alone.keys() == ranks[0].keys()
    for batch, terms in alone.items():
        assert ranks[0][batch] == pytest.approx(terms, rel=1e-4, abs=1e-6), batch


def test_ranks_draw_their_own_dropout_and_samples_but_stay_together(name: str, one: dict, two: list[dict]):
    parameters = [rank["sampled"]["parameters"] for rank in two]
    assert largest_difference(*parameters) == 0
    if name != "linear":  # which draws nothing
        assert largest_difference(parameters[0], one["sampled"]["parameters"]) > 1e-4


def test_validation_is_that_of_one_process_whatever_the_batches(name: str, one: dict, two: list[dict]):
    expected = one["validated"][0][0]
    assert len(expected) >= 8
    for run in (one, *two):
        for (values,) in run["validated"]:
            assert values.keys() == expected.keys()
            assert values == pytest.approx(expected, rel=1e-6, abs=1e-6)
    for batches in range(2):
        assert two[0]["validated"][batches] == two[1]["validated"][batches]


def test_a_rank_without_a_validation_row(name: str, one: dict, two: list[dict]):
    alone, *ranks = ([run["few"]["validation"]] for run in (one, *two))
    assert ranks[0] == ranks[1]
    values = ranks[0][0][-1]
    assert all(value == value for value in values.values())  # no NaN
    assert values == pytest.approx(alone[0][-1], rel=1e-4, abs=1e-4)


def test_baselines_are_exactly_those_of_one_process_and_stay(name: str, one: dict, two: list[dict]):
    found = [
        {key: value for key, value in values.items() if "_baseline/" in key}
        for run in (one, *two)
        for values in run["plain"]["validation"]
    ]
    assert len(found) == 3 * 2
    assert len(found[0]) >= 6
    for baselines in found:
        assert baselines == pytest.approx(found[0], rel=1e-6, abs=1e-7)
