"""What checkpoints of both stages bring back, and what one fit leaves to the next."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ss2a.callbacks import EMATeacher, PairFilter
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import ManifoldModule
from tests.callbacks.mean_teacher.teacher_fits import batches_of, fit
from tests.manifold_examples import (
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


FRESH = {"fresh_student": True, "decay_schedule": "constant"}


@pytest.mark.parametrize(
    ("options", "stages"),
    [({}, {}), ({"accumulate_batches": 4, "alternation": "shared_forward"}, {}), ({}, FRESH)],
    ids=["default", "accumulated", "fresh student"],
)
def test_a_run_resumed_anywhere_goes_on_with_the_same_bits(tmp_path: Path, dataset: str, options: dict, stages: dict):
    """Stage 1, its end, the first batch of stage 2 and its middle."""
    options = {"schedule": "cosine", "warmup_steps": 3, **options}
    whole, recorder = fit(
        tmp_path,
        dataset,
        EMATeacher(teacher_epochs=2, **stages),
        module=options,
        callbacks=[SaveEverywhere(tmp_path / "saved")],
    )
    for name in RESUMED_AT:
        teacher = EMATeacher(teacher_epochs=2, **stages)
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
    assert all(bool((batch["pair_origin"] == 0).all()) for batch in recorder.batches[:4])
    assert teacher.state_dict() == {"updates": 12, "first_epoch": 2}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_a_given_teacher_replaces_stage_one(tmp_path: Path, dataset: str, with_teacher: bool, fresh: bool):
    epochs = 1 if with_teacher else 9
    trained, recorder = fit(tmp_path, dataset, EMATeacher(teacher_epochs=epochs), max_epochs=2)
    recorder.trainer.save_checkpoint(tmp_path / "teacher.ckpt")
    given = EMATeacher(
        teacher_epochs=5,
        decay=1.0,
        decay_schedule="constant",
        teacher_checkpoint=str(tmp_path / "teacher.ckpt"),
        fresh_student=fresh,
    )
    module, again = fit(tmp_path, dataset, given, max_epochs=1, module={"learning_rate": 0.0})
    expected = parameters_of(trained.teacher if with_teacher else trained.manifold)
    assert largest_difference(parameters_of(module.teacher), expected) == 0
    assert (largest_difference(parameters_of(module.manifold), expected) == 0) == (not fresh)
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


def test_a_teacher_that_computes_something_else_is_named(tmp_path: Path, dataset: str, epochs: Path):
    given = EMATeacher(teacher_checkpoint=str(epochs / "3.ckpt"))
    with pytest.raises(InputError, match=r"model\.manifold\.input_scaling True, this model has False"):
        fit(tmp_path, dataset, given, module={"input_scaling": False})
