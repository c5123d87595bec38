"""Two stages, one average: what trains on what, and what follows whom."""

import copy
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lightning_ss2a.callbacks import CMSSShardWriter, EMATeacher
from lightning_ss2a.callbacks.mean_teacher.teacher import rampup
from lightning_ss2a.checkpoints import FORMAT
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.losses import consistency_loss
from tests.callbacks.mean_teacher.teacher_fits import batches_of, fit
from tests.manifold_examples import (
    DETERMINISTIC,
    Recorder,
    largest_difference,
    make_data,
    make_module,
    make_trainer,
    parameters_of,
    write_learnable_pairs,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """18 annotated, 18 curated and 17 translated rows to train on."""
    return write_learnable_pairs(tmp_path_factory.mktemp("pairs"), origins=3)


class Student(Callback):
    """Keeps the student's weights after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.weights.append(parameters_of(pl_module.manifold))


# -------------------------------------------------------------------- the average


@pytest.mark.parametrize("schedule", ["constant", "warmup"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_teacher_is_the_average_of_its_student_after_every_step(tmp_path, dataset, schedule: str, accumulate: int):
    student = Student()
    teacher = EMATeacher(teacher_epochs=1, decay=0.8, decay_schedule=schedule)
    options = {"accumulate_batches": accumulate}
    module, _ = fit(tmp_path, dataset, teacher, module=options, callbacks=[student], max_epochs=10, limit_val_batches=0)
    first = 2  # batches of stage 1: 18 annotated rows, 8 a batch
    assert len(student.weights) == first + 9 * 6
    average = {name: w.double() for name, w in student.weights[first - 1].items()}
    steps = student.weights[first + accumulate - 1 :: accumulate]  # the last batch of each step
    for t, weights in enumerate(steps):
        d = 0.8 if schedule == "constant" else min(0.8, (1 + t) / (10 + t))
        average = {name: d * average[name] + (1 - d) * w.double() for name, w in weights.items()}
    assert len(steps) == 54 / accumulate == teacher.state_dict()["updates"]
    assert largest_difference({n: p.double() for n, p in parameters_of(module.teacher).items()}, average) < 1e-6


def test_nothing_else_moves_the_teacher(tmp_path: Path, dataset: str):
    teacher = EMATeacher(teacher_epochs=1, decay=1.0, decay_schedule="constant")
    student = Student()
    module, recorder = fit(tmp_path, dataset, teacher, callbacks=[student])
    assert largest_difference(parameters_of(module.teacher), student.weights[1]) == 0
    assert largest_difference(parameters_of(module.teacher), parameters_of(module.manifold)) > 1e-3
    assert all(p.grad is None and not p.requires_grad for p in module.teacher.parameters())
    optimised = {id(p) for o in recorder.trainer.optimizers for group in o.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in module.manifold.parameters()}


def test_order_among_callbacks_does_not_matter(tmp_path: Path, dataset: str):
    """A checkpoint saved at the end of a batch holds the teacher of that batch."""

    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int):
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "five.ckpt")

    student = Student()
    teacher = EMATeacher(teacher_epochs=0, decay=0.5, decay_schedule="constant", consistency_weight=0)
    module = make_module()
    start = parameters_of(module.manifold)
    trainer = make_trainer(tmp_path, callbacks=[Save(), student, teacher], max_steps=7)
    trainer.fit(module, datamodule=make_data(dataset))
    average = {name: w.double() for name, w in start.items()}
    for weights in student.weights[:5]:
        average = {name: 0.5 * average[name] + 0.5 * w.double() for name, w in weights.items()}
    saved = torch.load(tmp_path / "five.ckpt", weights_only=True)["state_dict"]
    found = {n.removeprefix("teacher."): w.double() for n, w in saved.items() if n.startswith("teacher.")}
    assert largest_difference(found, average) < 1e-6


# -------------------------------------------------------------------- a fresh student


class StageTwo(Callback):
    """Keeps the student's weights, and how many tensors optimisers know the past of, before stage 2's first step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.teacher is not None and not hasattr(self, "weights"):
            self.weights = {name: weight.clone() for name, weight in parameters_of(pl_module.manifold).items()}
            self.remembered = sum(len(optimizer.state) for optimizer in trainer.optimizers)


FROZEN = {"teacher_epochs": 1, "decay": 1.0, "decay_schedule": "constant"}


@pytest.mark.parametrize("step", ["eager", "compiled"])
def test_a_fresh_student_has_new_weights_and_the_teacher_those_of_stage_one(tmp_path: Path, dataset: str, step: str):
    start, students = parameters_of(make_module().manifold), {}
    for seed in ("3", "3", "4"):
        with pytest.MonkeyPatch.context() as patch, torch.compiler.set_stance("force_eager"):
            patch.setenv("PL_GLOBAL_SEED", seed)
            student, seen = Student(), StageTwo()
            teacher = EMATeacher(**FROZEN, fresh_student=True)
            module, _ = fit(tmp_path, dataset, teacher, module={"step": step}, callbacks=[student, seen])
        assert largest_difference(parameters_of(module.teacher), student.weights[1]) == 0
        assert largest_difference(seen.weights, student.weights[1]) > 0.05
        assert largest_difference(seen.weights, start) > 0.05
        assert seen.remembered == 0
        assert largest_difference(student.weights[-1], seen.weights) > 1e-3  # and it learns
        assert seed not in students or largest_difference(students[seed], seen.weights) == 0
        students[seed] = seen.weights
    assert largest_difference(students["3"], students["4"]) > 0.05


def test_a_fresh_student_leaves_the_noise_of_others_alone(tmp_path: Path, dataset: str):
    """The generator of this process goes on as if nobody had drawn weights."""
    module, _ = fit(tmp_path, dataset, EMATeacher(**FROZEN, fresh_student=True), max_epochs=2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    module.restart_student()
    assert torch.equal(torch.rand(3), expected)


# -------------------------------------------------------------------- the stages


@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_stage_one_sees_annotated_rows_only_and_stage_two_all(tmp_path: Path, dataset: str, residency: str):
    data = {"residency": residency}
    _, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=2), data=data)
    origins = [batch["pair_origin"] for batch in recorder.batches]
    assert len(origins) == 2 * 2 + 2 * 6
    assert all(bool((origin == 0).all()) for origin in origins[:4])
    rows = torch.cat([batch["index"] for batch in recorder.batches[:4]])
    assert rows.bincount().max() <= 2
    assert len(rows.unique()) >= 16
    assert {0, 1, 2} == set(torch.cat(origins[4:]).tolist())
    for epoch in (recorder.batches[4:10], recorder.batches[10:]):
        assert len(torch.cat([batch["index"] for batch in epoch]).unique()) == 48


def test_both_stages_are_logged(tmp_path: Path, dataset: str):
    _, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=2, consistency_rampup_epochs=1))
    epochs = {epoch for epoch, _ in recorder.training}
    assert epochs == {0, 1, 2, 3}
    assert "train/loss_consistency" not in recorder.training[1, 1]
    assert recorder.training[2, 5]["train/loss_consistency"] > 0
    logged = {name: float(value) for name, value in recorder.trainer.callback_metrics.items()}
    assert logged["teacher/stage"] == 2
    assert logged["teacher/decay"] == pytest.approx(12 / 21)  # of the twelfth update, the last
    assert logged["teacher/consistency_weight"] == 1
    assert 0 < logged["teacher/distance_to_student"] < 1


def test_the_schedule_ends_with_the_run_though_its_stages_differ_in_length(tmp_path: Path, dataset: str):
    module, recorder = fit(
        tmp_path, dataset, EMATeacher(teacher_epochs=2), module={"schedule": "cosine", "warmup_steps": 2}
    )
    rates = recorder.learning_rates
    assert rates[:2] == pytest.approx([1.5e-3, 3e-3])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[4] == pytest.approx(3e-3 * 0.5 * (1 + math.cos(math.pi * (4 - 2) / (4 / 0.5 - 2))))
    assert module.lr_schedulers()[0].get_last_lr() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_without_annotated_rows_the_first_stage_takes_all_with_a_warning(tmp_path: Path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("curated")
    dataset = write_learnable_pairs(folder, origins=1)
    relabel(folder, pair_origin=1)
    with pytest.warns(UserWarning, match="no training pair is annotated, so stage 1 trains the teacher on all pairs"):
        module, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), max_epochs=2)
    assert len(recorder.batches) == 12
    assert module.teacher is not None


def relabel(folder: Path, pair_origin: int) -> None:
    """Write the data set again with another origin everywhere."""
    from lightning_ss2a.data import Manifest, ShardReader, ShardWriter

    manifest = Manifest.load(folder)
    reader = ShardReader(folder, manifest)
    columns = {
        split: reader.read(split, 0, 0, manifest.rows(split), list(manifest.columns)) for split in manifest.splits
    }
    options = {"kind": "pairs", "fields": manifest.fields, "classes": list(manifest.classes), "overwrite": True}
    for path in folder.iterdir():
        path.unlink()
    with ShardWriter(folder, provenance="made for a test", licence="CC0", **options) as writer:
        for split, rows in columns.items():
            writer.write(split, {**rows, "pair_origin": np.full(len(rows["pair_origin"]), pair_origin, np.uint8)})


def test_a_run_that_never_reaches_the_student_says_so(tmp_path: Path, dataset: str):
    with pytest.warns(UserWarning, match="teacher_epochs=2 leaves no epoch for the student: trainer.max_epochs is 2"):
        module, _ = fit(tmp_path, dataset, EMATeacher(teacher_epochs=2), max_epochs=2)
    assert module.teacher is None


def test_too_few_annotated_rows_for_a_batch_is_one_line(tmp_path: Path, dataset: str):
    with pytest.raises(InputError, match=r"stage 1 trains on annotated rows only: .*batch_size is 20 .*18"):
        fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), data={"batch_size": 20})


# -------------------------------------------------------------------- what the teacher says


def test_the_students_loss_holds_the_consistency_of_the_same_pairs():
    module = make_module(**DETERMINISTIC)
    batch = {"visual": torch.randn(6, 10), "audio": torch.randn(6, 8)}
    plain = module.losses(batch)
    module.start_teacher()
    with torch.no_grad():
        for p in module.manifold.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    assert module.losses(batch).keys() == plain.keys()  # weight 0: the teacher does not run
    module.consistency_weight = 0.7
    terms = module.losses(batch)
    expected = consistency_loss(
        module.manifold.project_visual(batch["visual"]).mean,
        module.manifold.project_audio(batch["audio"]).mean,
        module.teacher.project_visual(batch["visual"]).mean,
        module.teacher.project_audio(batch["audio"]).mean,
    )
    assert float(expected.detach()) > 1e-3
    assert terms["consistency"].item() == pytest.approx(expected.item(), rel=1e-6)
    whole = terms["contrastive"] + terms["reconstruction"] + 5e-5 * terms["kl"] + 0.7 * expected
    assert terms["loss"].item() == pytest.approx(whole.item(), rel=1e-6)
    terms["loss"].backward()
    assert all(p.grad is None for p in module.teacher.parameters())


def test_rampup_is_that_of_tarvainen_and_valpola():
    assert rampup(0, 5) == pytest.approx(math.exp(-5))
    assert rampup(2.5, 5) == pytest.approx(math.exp(-5 * 0.25))
    assert rampup(5, 5) == rampup(50, 5) == rampup(0, 0) == 1


def test_the_weight_rises_batch_by_batch(tmp_path: Path, dataset: str):
    weights = []

    class Weights(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            weights.append(pl_module.consistency_weight)

    teacher = EMATeacher(teacher_epochs=1, consistency_weight=2.0, consistency_rampup_epochs=2)
    fit(tmp_path, dataset, teacher, callbacks=[Weights()])
    assert weights[:2] == [0, 0]
    assert weights[2:] == pytest.approx([2 * rampup(i / 6, 2) for i in range(18)])


# -------------------------------------------------------------------- evaluation


def test_validation_and_prediction_can_use_the_teacher(tmp_path: Path, dataset: str):
    teacher = EMATeacher(teacher_epochs=1, decay=0.99, decay_schedule="constant", validate_teacher=True)
    module, recorder = fit(tmp_path, dataset, teacher)
    assert module.evaluated_manifold is module.teacher
    plain = make_module()
    plain.statistics = module.statistics
    values = []
    for network in (module.teacher, module.manifold):
        plain.manifold.load_state_dict(network.state_dict())
        evaluation = Recorder()
        make_trainer(tmp_path, callbacks=[evaluation]).validate(plain, datamodule=make_data(dataset), verbose=False)
        values.append(evaluation.validation[0])
    assert recorder.validation[-1] == values[0] != values[1]
    prediction = make_trainer(tmp_path, callbacks=[teacher]).predict(module, datamodule=make_data(dataset))[0]
    expected = module.teacher.project_visual(prediction_inputs(dataset)).mean
    torch.testing.assert_close(prediction["visual"], expected)


def prediction_inputs(dataset: str) -> Tensor:
    return next(iter(make_data(dataset).predict_dataloader()))["visual"]


def test_written_embeddings_name_the_model_that_made_them(tmp_path: Path, dataset: str):
    module, _ = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1))
    encoders = set()
    for name, validate_teacher in (("student", False), ("teacher", True)):
        callbacks = [EMATeacher(validate_teacher=validate_teacher), CMSSShardWriter(str(tmp_path / name))]
        make_trainer(tmp_path, callbacks=callbacks).predict(module, datamodule=make_data(dataset))
        encoders.add(ShardDataset(str(tmp_path / name), "train").manifest.fields["visual"].encoder)
    assert len(encoders) == 2


def test_the_stage_is_logged_where_it_begins_however_short_it_is(tmp_path: Path, dataset: str):
    logger = CSVLogger(tmp_path)
    fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), logger=logger, log_every_n_steps=5, max_epochs=2)
    with open(logger.experiment.metrics_file_path, newline="") as file:
        stages = [
            (int(row["step"]), float(row["teacher/stage"])) for row in csv.DictReader(file) if row["teacher/stage"]
        ]
    assert stages[:2] == [(0, 1.0), (2, 2.0)]


def test_only_annotated_pairs_need_no_selection(tmp_path: Path, tmp_path_factory, caplog):
    dataset = write_learnable_pairs(tmp_path_factory.mktemp("annotated"))
    _, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), max_epochs=2, data={"residency": "stream"})
    assert batches_of(recorder) == 12
    assert recorder.trainer.datamodule.selected_training_rows is None


@pytest.mark.parametrize("switch", [{"val_check_interval": 3}, {"limit_train_batches": 0.4}])
def test_switches_that_ask_for_more_batches_than_a_stage_has_are_named(tmp_path: Path, dataset: str, switch: dict):
    with pytest.raises(InputError, match=r"has only 2 batches, too few for trainer\.val_check_interval"):
        fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), **switch)


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_epochs": -1}, "teacher_epochs must be at least 0, found -1"),
        ({"decay": 1.5}, r"decay must be in \[0, 1\], found 1.5"),
        ({"decay": math.nan}, r"decay must be in \[0, 1\], found nan"),
        ({"decay_schedule": "cosine"}, "decay_schedule must be one of constant, warmup, found 'cosine'"),
        ({"consistency_weight": -0.1}, "consistency_weight must be at least 0"),
        ({"consistency_rampup_epochs": math.inf}, "consistency_rampup_epochs must be at least 0"),
        ({"fresh_student": True}, "decay_schedule=warmup would make the teacher the untrained student"),
        (
            {"fresh_student": True, "decay_schedule": "constant", "teacher_epochs": 0},
            "fresh_student=true needs a trained teacher: set EMATeacher.teacher_epochs",
        ),
    ],
)
def test_values_out_of_range(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        EMATeacher(**options)


def test_a_teacher_of_other_widths_is_named(tmp_path: Path, dataset: str):
    _, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), module={"width": 14}, max_epochs=2)
    path = tmp_path / "other.ckpt"
    recorder.trainer.save_checkpoint(path)
    with pytest.raises(InputError, match=rf"{path} has model.manifold.width 14, this model has 12"):
        fit(tmp_path, dataset, EMATeacher(teacher_checkpoint=str(path)))


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", "weights", "foreign"])
def test_a_file_that_is_no_teacher_is_named(tmp_path: Path, dataset: str, content: Any):
    path = tmp_path / "file.ckpt"
    if content in ("weights", "foreign"):
        parts = {"lightning_ss2a": {"format": FORMAT, "architecture": {}}, "hyper_parameters": {"_class_path": "a.B"}}
        ours = parts if content == "weights" else {}
        torch.save({"state_dict": nn.Linear(2, 2).state_dict()} | ours, path)
    elif content is not None:
        path.write_bytes(content)
    expected = {
        None: "no such file",
        "weights": "not the checkpoint of a manifold like this one",
        "foreign": "its format is none of ours",
    }
    with pytest.raises(InputError, match=expected.get(content, "not a checkpoint of Lightning, or a damaged one")):
        fit(tmp_path, dataset, EMATeacher(teacher_checkpoint=str(path)))


def test_a_module_that_cannot_have_a_teacher(tmp_path: Path):
    with pytest.raises(InputError, match="LightningModule has no teacher; use it with ManifoldModule"):
        EMATeacher().setup(make_trainer(tmp_path), LightningModule(), "fit")


# -------------------------------------------------------------------- precision and compilation


def test_it_trains_in_bfloat16_with_a_teacher_in_float32(tmp_path: Path, dataset: str):
    module, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), precision="bf16-mixed")
    assert {p.dtype for p in module.teacher.parameters()} == {torch.float32}
    assert 0 < recorder.training[3, 5]["train/loss_consistency"] < 1


@pytest.mark.slow
@pytest.mark.parametrize(("alternation", "variants"), [("exact", 3), ("shared_forward", 2)])
def test_compiled_training_with_a_teacher_equals_eager(tmp_path: Path, dataset: str, alternation: str, variants: int):
    from torch._dynamo.utils import counters

    recorders = []
    for compiled in (False, True):
        torch._dynamo.reset()
        counters.clear()
        options = {"step": "compiled" if compiled else "eager", "alternation": alternation, **DETERMINISTIC}
        recorders.append(fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), module=options)[1])
        assert counters["stats"]["unique_graphs"] == (variants if compiled else 0)
    for step, terms in recorders[0].training.items():
        assert recorders[1].training[step] == pytest.approx(terms, rel=1e-3, abs=1e-6), step


def test_a_step_of_flat_parameters_with_a_teacher_is_the_eager_one(tmp_path: Path, dataset: str):
    """The weight of consistency rises from step to step, and the teacher moves: no graph may keep them as they were."""
    runs = {}
    for way in ("eager", "compiled", "graph"):
        callback = EMATeacher(teacher_epochs=1, consistency_weight=3.0, consistency_rampup_epochs=2)
        with torch.compiler.set_stance("force_eager"):
            module, recorder = fit(tmp_path, dataset, callback, module={"step": way}, limit_val_batches=1)
        runs[way] = module.state_dict(), recorder.training
    weights, logged = runs.pop("eager")
    assert any(name.startswith("teacher.") for name in weights)
    for way, (found, terms_found) in runs.items():
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-6, msg=f"{way}: {name}")
        for number, terms in logged.items():
            assert terms_found[number] == pytest.approx(terms, rel=1e-4, abs=1e-6), (way, number)


def test_copies_of_the_callback_do_not_share_state():
    teacher = EMATeacher()
    other = copy.deepcopy(teacher)
    other.load_state_dict({"updates": 3, "first_epoch": 1})
    assert teacher.state_dict() == {"updates": 0, "first_epoch": 0}


def test_it_follows_no_longer_after_the_fit(tmp_path: Path, dataset: str):
    teacher = EMATeacher(teacher_epochs=1)
    every = ModelCheckpoint(tmp_path, save_last=True)
    _, recorder = fit(tmp_path, dataset, teacher, callbacks=[every], enable_checkpointing=True)
    assert not recorder.trainer.optimizers[-1]._optimizer_step_post_hooks
