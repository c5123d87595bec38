"""HyperparameterBoard: read back from the event file, as TensorBoard does."""

import math
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_ss2a.callbacks import HyperparameterBoard
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_the_tab_has_hyperparameters_and_metrics_and_no_chart_begins_with_nan(tmp_path: Path):
    logger = TensorBoardLogger(tmp_path, name="run", version=0, default_hp_metric=False)
    trainer = make_trainer(tmp_path, logger=logger, callbacks=[HyperparameterBoard()], max_epochs=3)
    data = make_data(write_learnable_pairs(tmp_path / "pairs"), fold=None)
    trainer.fit(make_module(kl_weight=0.125), datamodule=data)
    events = events_of(tmp_path / "run" / "version_0")

    plugin = events.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data
    start = HParamsPluginData.FromString(plugin.content).session_start_info
    assert start.hparams["kl_weight"].number_value == 0.125  # the module's
    assert start.hparams["batch_size"].number_value == 8  # the data's
    assert start.hparams["manifold.projector_widths"].string_value == "[16, 16]"
    plugin = events.summary_metadata[metadata.EXPERIMENT_TAG].plugin_data
    experiment = HParamsPluginData.FromString(plugin.content).experiment
    named = {info.name.tag for info in experiment.metric_infos}
    assert named == set(HyperparameterBoard().metrics)
    assert "hp_metric" not in events.Tags()["scalars"]
    for metric in named:  # the tab shows the last value of the scalar of this name
        values = [event.value for event in events.Scalars(metric)]
        assert len(values) == 3
        assert not any(math.isnan(value) for value in values)
        assert math.isclose(values[-1], float(trainer.callback_metrics[metric]), rel_tol=1e-6)


def test_without_tensorboard_nothing_happens(tmp_path: Path):
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    make_trainer(tmp_path, callbacks=[HyperparameterBoard()], max_epochs=1).fit(make_module(), datamodule=data)
    assert not list(tmp_path.rglob("events.*"))
