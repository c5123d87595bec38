"""HyperparameterBoard, read back by TensorBoard itself."""

import math
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2

from lightning_ss2a.callbacks import HyperparameterBoard
from lightning_ss2a.data import ShardDataModule
from tests.hparams_tab import NUMBER, HParamsTab
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs
from tests.stage_examples import make_stage, write_materials


def events_of(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def fit(
    folder: Path, name: str, module: LightningModule, data: ShardDataModule, *others: Callback, epochs: int = 1
) -> dict[str, float]:
    """Trains with a board and other callbacks; what was logged last."""
    logger = TensorBoardLogger(folder, name=name, default_hp_metric=False)
    callbacks = [HyperparameterBoard(), *others]
    trainer = make_trainer(folder, logger=logger, callbacks=callbacks, max_epochs=epochs)
    trainer.fit(module, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_the_tab_has_hyperparameters_and_metrics_and_no_chart_begins_with_nan(tmp_path: Path):
    data = make_data(write_learnable_pairs(tmp_path / "pairs"), fold=None)
    metrics = fit(tmp_path / "runs", "manifold", make_module(kl_weight=0.125), data, epochs=3)
    tab = HParamsTab(tmp_path / "runs")
    (session,) = tab.sessions(statuses=[api_pb2.STATUS_SUCCESS]).values()
    assert session.hparams["model.kl_weight"].number_value == 0.125
    assert session.hparams["data.batch_size"].number_value == 8
    assert session.hparams["model.manifold.projector_widths"].string_value == "[16, 16]"
    assert not any("._" in name for name in session.hparams)
    shown = {value.name.tag: value.value for value in session.metric_values}
    assert shown["val/ssms"] == pytest.approx(metrics["val/ssms"])  # the last one
    assert "hp_metric" not in shown
    events = events_of(tmp_path / "runs" / "manifold" / "version_0")
    values = [event.value for event in events.Scalars("val/ssms")]
    assert len(values) == 3
    assert not any(math.isnan(value) for value in values)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a manifold, one of which leaves an option out that the other has, and one of another stage."""
    folder = tmp_path_factory.mktemp("runs")
    materials = write_materials(folder)
    for options in ({}, {"gradient_clip_norm": 1.0}):
        fit(folder / "runs", "manifold", make_module(**options), make_data(materials["pairs"]))
    fit(folder / "runs", "remixer", make_stage("remixer", materials), make_data(materials["scenes"], fold=None))
    return folder / "runs"


def test_the_columns_are_those_of_all_runs_of_all_stages(runs: Path):
    tab = HParamsTab(runs)
    assert set(tab.sessions()) == {"manifold/version_0", "manifold/version_1", "remixer/version_0"}
    names = {"model.manifold.width", "model.remixer.num_layers", "model.optimization.learning_rate", "data.batch_size"}
    assert names <= set(tab.types)
    assert {"val/ssms", "val/recall@1/visual_to_audio", "val/ssms_baseline/source_mean"} <= tab.metrics


def test_what_is_none_in_one_run_is_missing_there_and_can_be_sorted_and_filtered(runs: Path):
    tab = HParamsTab(runs)
    clip = "model.optimization.gradient_clip_norm"
    assert tab.types[clip] == NUMBER
    assert [clip in session.hparams for session in tab.sessions().values()] == [False, True, False]
    first = {"hparam": clip, "order": api_pb2.ORDER_DESC, "missing_values_first": False}
    assert next(iter(tab.sessions(first))) == "manifold/version_1"
    assert list(tab.sessions({"hparam": clip, "exclude_missing_values": True})) == ["manifold/version_1"]
    tab.check_every_column()


class Failing(Callback):
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise FloatingPointError("the loss is not finite")


def test_a_run_that_was_stopped_is_no_success(tmp_path: Path):
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    with pytest.raises(FloatingPointError):
        fit(tmp_path / "runs", "manifold", make_module(), data, Failing())
    tab = HParamsTab(tmp_path / "runs")
    assert tab.sessions(statuses=[api_pb2.STATUS_SUCCESS]) == {}
    assert list(tab.sessions()) == ["manifold/version_0"]


def test_without_tensorboard_nothing_happens(tmp_path: Path):
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    make_trainer(tmp_path, callbacks=[HyperparameterBoard()], max_epochs=1).fit(make_module(), datamodule=data)
    assert not list(tmp_path.rglob("events.*"))
