"""Trains on some of the pairs, chosen by what no data set tells a training."""

from typing import Literal, get_args

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ss2a.callbacks.mean_teacher.teacher import ANNOTATED
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.simulation.truth import read_truth
from lightning_ss2a.errors import InputError

Rows = Literal["annotated", "matched"]


class TrainingRows(Callback):
    """Trains on some pairs only; validation and baselines read all rows as ever. Not beside an ``EMATeacher``.

    Args:
        rows: ``annotated`` pairs, or those of a simulated data set that its truth calls ``matched``: an oracle.

    Raises:
        InputError: an unknown choice.
    """

    def __init__(self, rows: Rows) -> None:
        if rows not in get_args(Rows):
            raise InputError(f"TrainingRows.rows must be one of {', '.join(get_args(Rows))}, found {rows!r}")
        self.rows = rows

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Selects the rows."""
        data = data_of(trainer)
        if stage != "fit":
            return
        if self.rows == "annotated":
            chosen = data.training_columns(["pair_origin"])["pair_origin"].numpy() == ANNOTATED
        else:
            chosen = ~read_truth(data.datasets[0], data.splits("train")[0][0])["mismatched"]
        data.select_training_rows(np.flatnonzero(chosen))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves all rows to later fits."""
        if stage == "fit":
            data_of(trainer).select_training_rows(None)
