"""TensorBoard's HParams tab."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.options import dotted


class HyperparameterBoard(Callback):
    """Fills the HParams tab: the run's hyperparameters beside the metrics that judge it.

    The tab knows only metrics that were named when the run began. Their values it reads from the scalars of the same
    name, so that it shows the last value of each.

    Args:
        metrics: names of the scalars shown beside the hyperparameters.
    """

    def __init__(
        self,
        metrics: tuple[str, ...] = (
            "val/ssms",
            "val/clip_score",
            "val/reconstruction_cosine",
            "val/recall@1/visual_to_audio",
            "val/recall@5/visual_to_audio",
            "val/modality_gap",
        ),
    ) -> None:
        self.metrics = tuple(metrics)

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Registers hyperparameters and metric names."""
        from torch.utils.tensorboard.summary import hparams

        shown = {**_flat(pl_module.hparams), **_flat(data_of(trainer).hparams)}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                # Not logger.log_hyperparams: that also writes each metric as a scalar at step 0, a mark in every chart.
                for summary in hparams(shown, dict.fromkeys(self.metrics, math.nan)):
                    logger.experiment.file_writer.add_summary(summary)


def _flat(hyperparameters: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Selects values that TensorBoard can show: numbers, booleans and short texts."""
    shown: dict[str, bool | int | float | str] = {}
    for name, value in dotted(hyperparameters):
        if name.startswith("_"):
            continue
        shown[name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return shown
