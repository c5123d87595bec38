"""Two stages, one average: what trains on what, what follows whom, and what a checkpoint brings back."""

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

from lightning_ss2a.callbacks import CMSSShardWriter, EMATeacher, PairFilter
from lightning_ss2a.callbacks.ema_teacher import rampup
from lightning_ss2a.data import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.losses import consistency_loss
from lightning_ss2a.training import ManifoldModule
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

ANNOTATED_ROWS, ROWS = 18, 53


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


def fit(folder: Path, dataset: str, teacher: EMATeacher, module: ManifoldModule | dict | None = None, **options: Any):
    recorder = Recorder(keep_batches=True)
    module = make_module(**(module or {})) if not isinstance(module, ManifoldModule) else module
    callbacks = [recorder, teacher, *options.pop("callbacks", [])]
    data = make_data(dataset, **options.pop("data", {}))
    checkpoint = options.pop("ckpt_path", None)
    trainer = make_trainer(folder, callbacks=callbacks, **{"max_epochs": 4, **options})
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    recorder.trainer = trainer
    return module, recorder


# -------------------------------------------------------------------- the average


@pytest.mark.parametrize("schedule", ["constant", "warmup"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_teacher_is_the_average_of_its_student_after_every_step(tmp_path, dataset, schedule: str, accumulate: int):
    student = Student()
    teacher = EMATeacher(teacher_epochs=1, decay=0.8, decay_schedule=schedule)
    options = {"accumulate_batches": accumulate}
    module, _ = fit(tmp_path, dataset, teacher, module=options, callbacks=[student], max_epochs=10)
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


# -------------------------------------------------------------------- the stages


@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_stage_one_sees_annotated_rows_only_and_stage_two_all(tmp_path: Path, dataset: str, residency: str):
    data = {"residency": residency}
    _, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=2), data=data)
    origins = [batch["origin"] for batch in recorder.batches]
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
    relabel(folder, origin=1)
    with pytest.warns(UserWarning, match="no training pair is annotated, so stage 1 trains the teacher on all pairs"):
        module, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), max_epochs=2)
    assert len(recorder.batches) == 12
    assert module.teacher is not None


def relabel(folder: Path, origin: int) -> None:
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
    with ShardWriter(folder, origin="made for a test", licence="CC0", **options) as writer:
        for split, rows in columns.items():
            writer.write(split, {**rows, "origin": np.full(len(rows["origin"]), origin, np.uint8)})


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


# -------------------------------------------------------------------- checkpoints


class SaveEverywhere(Callback):
    """A checkpoint after every batch, every validation and every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-batch{batch_idx}.ckpt")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-validated.ckpt")


RESUMED_AT = [
    "0-batch0",
    "0-batch1",
    "1-batch1",
    "1-validated",
    "2-batch0",
    "2-batch3",
    "2-batch5",
    "2-validated",
    "3-batch4",
]


@pytest.mark.parametrize("options", [{}, {"accumulate_batches": 4, "alternation": "shared_forward"}], ids=str)
def test_a_run_resumed_anywhere_goes_on_with_the_same_bits(tmp_path: Path, dataset: str, options: dict):
    """Stage 1, its end, the first batch of stage 2 and its middle."""
    options = {"schedule": "cosine", "warmup_steps": 3, **options}
    whole, recorder = fit(
        tmp_path, dataset, EMATeacher(teacher_epochs=2), module=options, callbacks=[SaveEverywhere(tmp_path / "saved")]
    )
    for name in RESUMED_AT:
        teacher = EMATeacher(teacher_epochs=2)
        path = tmp_path / "saved" / f"{name}.ckpt"
        resumed, again = fit(tmp_path, dataset, teacher, module=options, ckpt_path=path)
        assert largest_difference(parameters_of(resumed), parameters_of(whole)) == 0, name
        assert len(list(resumed.parameters())) == 2 * len(list(resumed.manifold.parameters()))
        assert again.validation[-1] == recorder.validation[-1], name
        left = again.batches[-3:]
        for last, expected in zip(left, recorder.batches[-len(left) :], strict=True):
            assert torch.equal(last["index"], expected["index"]), name
        first, second = (r.trainer.optimizers[0].state_dict()["state"] for r in (again, recorder))
        assert all(torch.equal(first[i]["exp_avg"], second[i]["exp_avg"]) for i in second), name
        assert teacher.state_dict()["updates"] == (12 if "accumulate_batches" not in options else 4), name


def test_a_checkpoint_with_a_teacher_loads_without_the_callback(tmp_path: Path, dataset: str):
    module, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1))
    recorder.trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ManifoldModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert largest_difference(parameters_of(loaded), parameters_of(module)) == 0
    assert loaded.evaluated_manifold is loaded.manifold
    assert not any(p.requires_grad for p in loaded.teacher.parameters())


def test_a_second_fit_begins_with_stage_one(tmp_path: Path, dataset: str):
    teacher = EMATeacher(teacher_epochs=2)
    module, _ = fit(tmp_path, dataset, teacher)
    _, recorder = fit(tmp_path, dataset, teacher, module)
    assert all(bool((batch["origin"] == 0).all()) for batch in recorder.batches[:4])
    assert teacher.state_dict() == {"updates": 12, "first_epoch": 2}


@pytest.mark.parametrize("with_teacher", [False, True])
def test_a_given_teacher_replaces_stage_one(tmp_path: Path, dataset: str, with_teacher: bool):
    epochs = 1 if with_teacher else 9
    trained, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=epochs), max_epochs=2)
    recorder.trainer.save_checkpoint(tmp_path / "teacher.ckpt")
    given = EMATeacher(
        teacher_epochs=5, decay=1.0, decay_schedule="constant", teacher_checkpoint=str(tmp_path / "teacher.ckpt")
    )
    module, again = fit(tmp_path, dataset, given, max_epochs=1, module={"learning_rate": 0.0})
    expected = parameters_of(trained.teacher if with_teacher else trained.manifold)
    assert largest_difference(parameters_of(module.teacher), expected) == 0
    assert largest_difference(parameters_of(module.manifold), expected) == 0
    assert len(again.batches) == 6  # all rows, from the first epoch


class SaveEpochs(Callback):
    """A checkpoint at the end of every epoch, and after every batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-{batch_idx}.ckpt")


@pytest.fixture(scope="module")
def epochs(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of two epochs of stage 1 (2 batches each) and two of stage 2 (6 batches each)."""
    folder = tmp_path_factory.mktemp("epochs")
    fit(folder, dataset, EMATeacher(teacher_epochs=2), callbacks=[SaveEpochs(folder)])
    return folder


def test_one_module_takes_checkpoints_with_and_without_a_teacher(tmp_path: Path, dataset: str, epochs: Path):
    """As ``trainer.test(ckpt_path="best")`` does after a fit whose best epoch was in stage 1."""
    module, data = make_module(), make_data(dataset)
    for name, has_teacher in (("3", True), ("0", False), ("3", True)):
        make_trainer(tmp_path).validate(module, datamodule=data, ckpt_path=epochs / f"{name}.ckpt", verbose=False)
        assert (module.teacher is not None) == has_teacher


def batches_of(recorder: Recorder) -> int:
    return len(recorder.batches)


def test_a_fit_leaves_nothing_to_the_next_with_the_same_data_and_module(tmp_path: Path, dataset: str, epochs: Path):
    data, module = make_data(dataset), make_module()
    first = EMATeacher(teacher_epochs=1, consistency_rampup_epochs=0)
    make_trainer(tmp_path, callbacks=[first], max_epochs=2).fit(module, datamodule=data)
    assert module.consistency_weight == 0
    make_trainer(tmp_path, callbacks=[EMATeacher(teacher_epochs=4)], max_epochs=1).fit(make_module(), datamodule=data)
    runs = [
        ([], None, 6),
        ([EMATeacher(teacher_checkpoint=str(epochs / "3.ckpt"))], None, 6),
        ([EMATeacher(teacher_epochs=2)], epochs / "2.ckpt", 6),
    ]
    for callbacks, checkpoint, batches in runs:
        recorder, again = Recorder(keep_batches=True), make_module()
        trainer = make_trainer(tmp_path, callbacks=[recorder, *callbacks], max_epochs=4 if checkpoint else 1)
        trainer.fit(again, datamodule=data, ckpt_path=checkpoint)
        assert batches_of(recorder) == batches
        assert data.selected_training_rows is None
    recorder = Recorder()
    make_trainer(tmp_path, callbacks=[recorder], max_epochs=1).fit(module, datamodule=data)
    assert module.teacher is None
    assert not any("train/loss_consistency" in terms for terms in recorder.training.values())


def test_a_failed_fit_leaves_all_rows_too(tmp_path: Path, dataset: str):
    class Fail(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("as asked")

    data = make_data(dataset)
    trainer = make_trainer(tmp_path, callbacks=[EMATeacher(teacher_epochs=1), Fail()])
    with pytest.raises(RuntimeError, match="as asked"):
        trainer.fit(make_module(), datamodule=data)
    assert data.selected_training_rows is None
    assert not trainer.optimizers[-1]._optimizer_step_post_hooks


def test_a_plain_run_can_be_resumed_with_a_teacher_at_the_end_of_an_epoch(tmp_path: Path, dataset: str, caplog):
    folder = tmp_path / "plain"
    recorder = Recorder()
    trainer = make_trainer(folder, callbacks=[recorder, SaveEpochs(folder)], max_epochs=3)
    trainer.fit(make_module(), datamodule=make_data(dataset))
    teacher = EMATeacher(teacher_epochs=2)
    _, again = fit(tmp_path, dataset, teacher, ckpt_path=folder / "2.ckpt")
    assert batches_of(again) == 6
    assert teacher.state_dict() == {"updates": 6, "first_epoch": 3}
    assert "stage 1" not in caplog.text
    late = EMATeacher(teacher_epochs=2)
    _, again = fit(tmp_path, dataset, late, ckpt_path=folder / "2-1.ckpt")  # from the middle: a teacher from epoch 3 on
    assert batches_of(again) == 4 + 6
    assert late.state_dict() == {"updates": 6, "first_epoch": 3}


def test_another_length_of_stage_one_takes_effect_at_an_epoch_only(tmp_path: Path, dataset: str, epochs: Path):
    with pytest.raises(InputError, match="the checkpoint is from batch 1 of an epoch"):
        fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), ckpt_path=epochs / "1-0.ckpt")
    _, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), ckpt_path=epochs / "0-1.ckpt")
    assert batches_of(recorder) == 3 * 6


def test_a_filter_added_or_taken_out_on_resume_keeps_epochs_whole(tmp_path: Path, dataset: str, epochs: Path):
    options = {"min_pairs": 5, "min_kept_fraction": 0.5, "curve": "convex"}
    _, recorder = fit(
        tmp_path,
        dataset,
        EMATeacher(teacher_epochs=2),
        ckpt_path=epochs / "2-3.ckpt",
        callbacks=[PairFilter(**options)],
    )
    index = torch.cat([batch["index"] for batch in recorder.batches[:2]])
    assert len(index.unique()) == 16  # the last two batches of epoch 2 as they were; then a filtered epoch
    filtered = len(recorder.batches) - 2
    assert 3 <= filtered < 6
    folder = tmp_path / "filtered"
    callbacks = [PairFilter(**options), SaveEpochs(folder)]
    fit(folder, dataset, EMATeacher(teacher_epochs=2), max_epochs=3, callbacks=callbacks)
    last = max(folder.glob("2-*.ckpt"), key=lambda path: int(path.stem[2:]))
    _, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=2), ckpt_path=last)
    assert batches_of(recorder) == 6


def test_a_given_teacher_does_not_overwrite_a_resumed_run(tmp_path: Path, dataset: str, epochs: Path):
    given = EMATeacher(teacher_checkpoint=str(epochs / "3.ckpt"))
    with pytest.raises(InputError, match="would overwrite what --ckpt_path resumes"):
        fit(tmp_path, dataset, given, ckpt_path=epochs / "0.ckpt")
    module, _ = fit(tmp_path, dataset, given, ckpt_path=epochs / "2.ckpt")  # has a teacher of its own
    assert module.teacher is not None


@pytest.mark.parametrize("options", [{"max_epochs": -1, "max_steps": 5}, {"max_epochs": 2}])
def test_an_end_in_stage_one_is_told(tmp_path: Path, dataset: str, options: dict):
    with pytest.warns(UserWarning, match="training has ended in stage 1"):
        fit(tmp_path, dataset, EMATeacher(teacher_epochs=3), **options)


def test_a_teacher_asked_for_and_not_there_is_told(tmp_path: Path, dataset: str, epochs: Path):
    trainer = make_trainer(tmp_path, callbacks=[EMATeacher(validate_teacher=True)])
    with pytest.warns(UserWarning, match="the checkpoint has no teacher, so its model is used"):
        trainer.validate(make_module(), datamodule=make_data(dataset), ckpt_path=epochs / "0.ckpt", verbose=False)


def test_the_test_split_is_measured_with_the_teacher_too(tmp_path: Path, dataset: str, epochs: Path):
    values = []
    for validate_teacher in (False, True):
        recorder = Recorder()
        callbacks = [recorder, EMATeacher(validate_teacher=validate_teacher)]
        data = make_data(dataset, test_split="validation")
        make_trainer(tmp_path, callbacks=callbacks).test(
            make_module(), datamodule=data, ckpt_path=epochs / "3.ckpt", verbose=False
        )
        values.append(recorder.validation[0])
    assert values[0] != values[1]


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
        ({"decay_schedule": "cosine"}, "decay_schedule must be constant or warmup, found 'cosine'"),
        ({"consistency_weight": -0.1}, "consistency_weight must be at least 0"),
        ({"consistency_rampup_epochs": math.inf}, "consistency_rampup_epochs must be at least 0"),
    ],
)
def test_values_out_of_range(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        EMATeacher(**options)


def test_a_teacher_of_other_widths_is_named(tmp_path: Path, dataset: str):
    _, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), module={"manifold_width": 14}, max_epochs=2)
    path = tmp_path / "other.ckpt"
    recorder.trainer.save_checkpoint(path)
    with pytest.raises(InputError, match=rf"{path} has model.manifold_width 14, this model has 12"):
        fit(tmp_path, dataset, EMATeacher(teacher_checkpoint=str(path)))


def test_a_teacher_that_computes_something_else_is_named(tmp_path: Path, dataset: str, epochs: Path):
    given = EMATeacher(teacher_checkpoint=str(epochs / "3.ckpt"))
    with pytest.raises(InputError, match=r"model\.input_scaling True, this model has False"):
        fit(tmp_path, dataset, given, module={"input_scaling": False})


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", "weights"])
def test_a_file_that_is_no_teacher_is_named(tmp_path: Path, dataset: str, content: Any):
    path = tmp_path / "file.ckpt"
    if content == "weights":
        torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, path)
    elif content is not None:
        path.write_bytes(content)
    expected = {None: "no such file", "weights": "not the checkpoint of a manifold like this one"}
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
@pytest.mark.parametrize(("alternation", "variants"), [("exact", 6), ("shared_forward", 3)])
def test_compiled_training_with_a_teacher_equals_eager(tmp_path: Path, dataset: str, alternation: str, variants: int):
    from torch._dynamo.utils import counters

    recorders = []
    for compiled in (False, True):
        torch._dynamo.reset()
        counters.clear()
        options = {"compile_model": compiled, "alternation": alternation, **DETERMINISTIC}
        recorders.append(fit(tmp_path, dataset, EMATeacher(teacher_epochs=1), module=options)[1])
        assert counters["stats"]["unique_graphs"] == (variants if compiled else 0)
    for step, terms in recorders[0].training.items():
        assert recorders[1].training[step] == pytest.approx(terms, rel=1e-3, abs=1e-6), step


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
