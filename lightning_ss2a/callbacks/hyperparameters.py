"""TensorBoard's HParams tab.

Without a summary of the experiment, TensorBoard takes the columns from all runs below its log directory, those of other
stages and of sweeps too; with one it would take them from one run. All values of a column must be of one type, so that
it can be sorted and filtered: None is left out.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ss2a.callbacks.outputs import tensorboard_writers
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.options import dotted

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary


class HyperparameterBoard(Callback):
    """Fills the HParams tab: the run's hyperparameters, under their names of the command line, beside its scalars.

    The tab shows the last value of each scalar. A run that was stopped has no status there.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the hyperparameters."""
        own = {"model": pl_module.hparams, "data": data_of(trainer).hparams}
        _write(trainer, session_start({name: value for name, value in dotted(own) if "._" not in name}))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes that the run has ended well."""
        _write(trainer, session_end("STATUS_SUCCESS", time.time()))


def session_start(hyperparameters: Mapping[str, Any], seconds: float | None = None) -> "Summary":
    """Makes the summary that a session of the HParams tab begins with.

    Args:
        hyperparameters: by name; numbers, booleans, texts, or what is shown as text; None is left out.
        seconds: when it began, since the epoch; None: now.
    """
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    shown = {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in hyperparameters.items()
        if value is not None
    }
    # A name of its own would unite sessions that have the same, such as the first trials of two studies.
    return hparams_pb(shown, trial_id="", start_time_secs=seconds)


def session_end(status: str, seconds: float) -> "Summary":
    """Makes the summary that a session of the HParams tab ends with.

    Args:
        status: name of a status in TensorBoard's ``hparams/api.proto``.
        seconds: when it ended, since the epoch.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(status), end_time_secs=seconds)
    # summary_v2 has no function for the end of a session, and the one in summary.py needs TensorFlow.
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])


def _write(trainer: Trainer, summary: "Summary") -> None:
    for writer in tensorboard_writers(trainer):
        writer._get_file_writer().add_summary(summary)
