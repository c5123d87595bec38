"""One process and two with the same global batch train the same model and report the same numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_ss2a.callbacks import EMATeacher, PairFilter
from lightning_ss2a.metric_names import OWN
from tests.distributed import run_distributed
from tests.manifold_examples import (
    DETERMINISTIC,
    Recorder,
    SaveAfterValidation,
    largest_difference,
    make_data,
    make_module,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)

ROWS = {"train": 83, "validation": 23}  # 10 batches of 8; validation: 5 batches of 5, 5, 5, 5, 3 rows
FEWER_ROWS_THAN_RANKS_NEED = {"train": 83, "validation": 4}  # the second process gets an empty batch only

RUNS: dict[str, dict[str, Any]] = {
    "exact": {"alternation": "exact"},
    "shared forward": {"alternation": "shared_forward"},
    "everything": {
        "chunk_size": 3,
        "ccmr_mask_diagonal": False,
        "gradient_clip_norm": 0.5,
        "warmup_steps": 5,
        "schedule": "cosine",
        "accumulate_batches": 3,
    },
    "graph": {"step": "graph"},
    "compiled, shared forward": {"step": "compiled", "alternation": "shared_forward", "gradient_clip_norm": 0.5},
}
"""Options of the module in each run, all without dropout and sampling. Twenty steps each; nothing is compiled."""
TWENTY_STEPS = {"max_steps": 20, "max_epochs": -1}
ONE_BATCH = {"limit_val_batches": 1}


TEACHER_RUN = {"accumulate_batches": 2}


def teacher_options() -> dict[str, Any]:
    callbacks = [EMATeacher(teacher_epochs=1, consistency_rampup_epochs=1), PairFilter(min_pairs=10)]
    return {"callbacks": callbacks, "max_steps": -1, "max_epochs": 4}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pairs")
    return {
        "uneven": write_learnable_pairs(folder / "uneven", ROWS),
        "mixed": write_learnable_pairs(folder / "mixed", ROWS, origins=3),
        "few": write_learnable_pairs(folder / "few", FEWER_ROWS_THAN_RANKS_NEED),
    }


WAITING = {"accumulate_batches": 4, "warmup_steps": 3}


def train_and_save(dataset: str, folder: str) -> Tensor:
    """Train, with a checkpoint in the middle of an epoch where two batches wait for their step; then from there."""
    options = {"max_steps": -1, "max_epochs": 2, "val_check_interval": 5}
    train(dataset, folder, WAITING, **options, callbacks=[SaveAfterValidation(Path(folder))])
    return resume(dataset, folder, Path(folder, "015.ckpt"))


def resume(dataset: str, folder: str, checkpoint: Path) -> dict[str, Tensor]:
    return train(dataset, folder, WAITING, checkpoint, max_steps=-1, max_epochs=2)["parameters"]


def train(
    dataset: str, folder: str, options: dict[str, Any], checkpoint: Path | None = None, **trainer_options: Any
) -> dict[str, Any]:
    """Train for twenty steps, in one process or in this one of several."""
    recorder, module = Recorder(), make_module(**{**DETERMINISTIC, **options})
    several = dist.is_initialized()
    if several:
        os.environ["LOCAL_RANK"] = str(dist.get_rank())  # Lightning then takes this process as its own
        trainer_options |= {"strategy": "ddp", "devices": dist.get_world_size()}
    callbacks = [recorder, *trainer_options.pop("callbacks", [])]
    trainer = make_trainer(folder, callbacks=callbacks, **{**TWENTY_STEPS, **trainer_options})
    with torch.compiler.set_stance("force_eager"):
        trainer.fit(module, datamodule=make_data(dataset, evaluation_batch_size=5), ckpt_path=checkpoint)
    assert trainer.world_size == (dist.get_world_size() if several else 1)
    return {
        "parameters": parameters_of(module),
        "steps": trainer.global_step,
        "validation": recorder.validation,
        "training": recorder.training,
        "per_class": module.ssms_by_group[OWN],
        "unused": trainer.strategy._ddp_kwargs if several else {},
    }


def validate(dataset: str, folder: str, data_options: dict[str, Any]) -> list[dict[str, float]]:
    """The numbers of an untrained module, from one process or from this one of several."""
    recorder, module = Recorder(), make_module()
    options = {"strategy": "ddp", "devices": dist.get_world_size()} if dist.is_initialized() else {}
    trainer = make_trainer(folder, callbacks=[recorder], **options)
    data = make_data(dataset, **{"evaluation_batch_size": 5, **data_options})
    trainer.validate(module, datamodule=data, verbose=False)
    return recorder.validation


VALIDATIONS = [
    ("uneven", {}),
    ("uneven", {"evaluation_batch_size": 23}),  # one rank gets all rows
    ("uneven", {"evaluation_batch_size": 2, "rows_per_group": "one"}),
    ("uneven", {"residency": "stream"}),
    ("few", {}),
]


def train_and_validate(datasets: dict[str, str], folder: str) -> dict[str, Any]:
    uneven, mixed = datasets["uneven"], datasets["mixed"]
    measured = {"exact": {}}  # of the others, one batch of each rank is validated on, and nothing asked of it
    trained = {name: train(uneven, folder, run, **measured.get(name, ONE_BATCH)) for name, run in RUNS.items()}
    trained["sampled"] = train(uneven, folder, {"embedding": "sample", "dropout": 0.2}, **ONE_BATCH)
    sampling = {"embedding": "sample", **TEACHER_RUN}
    trained["teacher"] = train(mixed, folder, sampling, **teacher_options(), **ONE_BATCH)
    trained["teacher, deterministic"] = train(mixed, folder, TEACHER_RUN, **teacher_options(), **ONE_BATCH)
    trained["few"] = train(datasets["few"], folder, {}, max_steps=-1, max_epochs=1)
    validated = [validate(datasets[name], folder, options) for name, options in VALIDATIONS]
    return {"trained": trained, "validated": validated, "resumed": train_and_save(datasets["uneven"], folder)}


@pytest.fixture(scope="module")
def folder_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def one(datasets: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train_and_validate(datasets, str(tmp_path_factory.mktemp("one")))


@pytest.fixture(scope="module")
def two(datasets: dict[str, str], folder_of_two: Path) -> list[dict[str, Any]]:
    return run_distributed(train_and_validate, datasets, str(folder_of_two))


@pytest.mark.parametrize("name", RUNS)
def test_parameters_after_twenty_steps_are_those_of_one_process(name: str, one: dict, two: list[dict]):
    alone = one["trained"][name]
    ranks = [rank["trained"][name] for rank in two]
    assert alone["steps"] == 20
    assert [rank["steps"] for rank in ranks] == [20, 20]
    assert [rank["unused"] for rank in ranks] == [{}, {}]  # no find_unused_parameters
    assert largest_difference(ranks[0]["parameters"], ranks[1]["parameters"]) == 0
    difference = largest_difference(alone["parameters"], ranks[0]["parameters"])
    assert difference <= 1e-5
    moved = largest_difference(alone["parameters"], parameters_of(make_module(**DETERMINISTIC)))
    assert moved > 1e-2  # twenty steps lead a thousand times further than the difference allowed


@pytest.mark.parametrize("name", RUNS)
def test_training_terms_are_those_of_the_global_batch(name: str, one: dict, two: list[dict]):
    alone, ranks = one["trained"][name]["training"], [rank["trained"][name]["training"] for rank in two]
    assert ranks[0] == ranks[1]
    assert alone.keys() == ranks[0].keys()
    for batch, terms in alone.items():
        assert ranks[0][batch] == pytest.approx(terms, rel=1e-4, abs=1e-6), batch


def test_ranks_draw_their_own_dropout_and_samples_but_stay_together(one: dict, two: list[dict]):
    parameters = [rank["trained"]["sampled"]["parameters"] for rank in two]
    assert largest_difference(*parameters) == 0
    assert largest_difference(parameters[0], one["trained"]["sampled"]["parameters"]) > 1e-4


def test_teachers_are_the_same_on_every_rank(one: dict, two: list[dict]):
    for name, tolerance in (("teacher", None), ("teacher, deterministic", 1e-5)):
        alone, ranks = one["trained"][name], [rank["trained"][name] for rank in two]
        teacher = [n for n in alone["parameters"] if n.startswith("teacher.")]
        assert len(teacher) == len(alone["parameters"]) / 2
        assert largest_difference(ranks[0]["parameters"], ranks[1]["parameters"]) == 0
        assert ranks[0]["training"] == ranks[1]["training"]
        assert max(terms.get("train/loss_consistency", 0) for terms in ranks[0]["training"].values()) > 0
        difference = largest_difference(alone["parameters"], ranks[0]["parameters"])
        assert difference <= tolerance if tolerance else difference > 1e-4


@pytest.mark.parametrize("number", range(len(VALIDATIONS)))
def test_validation_is_exactly_that_of_one_process(number: int, one: dict, two: list[dict]):
    expected = one["validated"][number]
    assert [rank["validated"][number] for rank in two] == [expected, expected]
    assert len(expected[0]) == 12 + len(baselines(expected[0]))
    assert (
        len(baselines(expected[0])) == 3 * 4 + 2 * 9 + 8
    )  # predictions by four baselines, both ridges and chance elsewhere


def test_baselines_are_exactly_those_of_one_process_and_measured_once(one: dict, two: list[dict]):
    alone = [baselines(values) for values in one["trained"]["exact"]["validation"]]
    assert len(alone) >= 2
    assert all(values == alone[0] for values in alone)
    for rank in two:
        assert [baselines(values) for values in rank["trained"]["exact"]["validation"]] == alone


def test_numbers_by_class_are_those_of_one_process(one: dict, two: list[dict]):
    for name in ("exact", "few"):
        values: list[Tensor] = [run["trained"][name]["per_class"] for run in (one, *two)]
        torch.testing.assert_close(values[1], values[2], rtol=0, atol=0, equal_nan=True)
        assert values[0].shape == values[1].shape == (3,)
        assert torch.equal(values[0].isnan(), values[1].isnan())


def test_a_rank_without_a_validation_row(two: list[dict]):
    values = [rank["trained"]["few"]["validation"] for rank in two]
    assert values[0] == values[1]
    assert all(value == value for value in values[0][-1].values())  # no NaN


def baselines(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if "_baseline/" in name}


def test_a_checkpoint_of_two_processes_resumes_on_two_and_on_one(datasets, one, two, folder_of_two, tmp_path: Path):
    checkpoint = folder_of_two / "015.ckpt"
    pending = torch.load(checkpoint, weights_only=True)["pending_batches"]
    assert [len(batch["index"]) for batch in pending] == [8]  # 10 batches an epoch: 4, 4, 2; then 4 and 1 that waits
    straight = train(datasets["uneven"], str(tmp_path), WAITING, max_steps=-1, max_epochs=2)["parameters"]
    assert largest_difference(one["resumed"], straight) == 0
    assert largest_difference(two[0]["resumed"], two[1]["resumed"]) == 0
    assert largest_difference(two[0]["resumed"], straight) <= 1e-5
    assert largest_difference(resume(datasets["uneven"], str(tmp_path), checkpoint), straight) <= 1e-5


# -------------------------------------------------------------------- the command


def lightning(folder: Path, dataset: str, *arguments: str) -> dict[str, Any]:
    """Run the command; returns what its checkpoint holds."""
    config = {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 2,
            "default_root_dir": str(folder),
            "callbacks": [
                {
                    "class_path": "ModelCheckpoint",
                    "init_args": {"dirpath": str(folder), "filename": "last"},
                }
            ],
        },
        "model": {
            "class_path": "ManifoldModule",
            "init_args": {
                "manifold": {
                    "width": 12,
                    "projector_widths": [16, 16],
                    "reconstructor_widths": [16],
                    "dropout": 0.0,
                },
                "sampling": {"embedding": "mean"},
                "measuring": {"top_n": 4},
            },
        },
        "data": {
            "class_path": "ShardDataModule",
            "init_args": {"datasets": dataset, "batch_size": 8, "evaluation_batch_size": 5},
        },
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "lightning_ss2a", "fit", "-c", str(folder / "config.json"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_PORT", "MASTER_ADDR", "PL_GLOBAL_SEED"):
        environment.pop(name, None)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return torch.load(folder / "last.ckpt", weights_only=True)


@pytest.mark.slow
def test_the_command_on_two_processes(datasets: dict[str, str], tmp_path: Path):
    alone = lightning(tmp_path / "one", datasets["uneven"], "--trainer.devices=1")
    together = lightning(tmp_path / "two", datasets["uneven"], "--trainer.devices=2", "--trainer.strategy=ddp")
    assert alone["global_step"] == together["global_step"] == 20
    assert largest_difference(alone["state_dict"], together["state_dict"]) <= 1e-5
    for name, value in alone["training_statistics"].items():
        assert torch.equal(value, together["training_statistics"][name])
