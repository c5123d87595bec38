"""Gives some fields of all batches other values, in training and validation, baselines included."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_ss2a.callbacks.trainer_state import callbacks_of, data_of
from lightning_ss2a.training.validation.baselines import fit_training_statistics


class FieldIntervention(Callback, ABC):
    """Trains and measures with other values of some fields, as if the data set held them."""

    @abstractmethod
    def fields(self, trainer: Trainer, split: str) -> dict[str, Tensor]:
        """Makes values [rows, ...] of a split by field, in the order of its rows; none: nothing is changed."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Makes the values, and fits the baselines on them."""
        data = data_of(trainer)
        self._values = {stage: self.fields(trainer, data.splits(stage)[0][0]) for stage in ("train", "validation")}
        if any(self._values.values()):
            pl_module.statistics = fit_training_statistics(changed_training_batches(trainer))

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Changes a batch."""
        self.change(batch, "train")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Changes a batch."""
        self.change(batch, "validation")

    def change(self, batch: dict[str, Any], stage: str) -> None:
        """Puts the values of a batch's rows in place of its own."""
        for name, values in self._values[stage].items():
            batch[name] = values[batch["index"].cpu()].to(batch[name])


def changed_training_batches(trainer: Trainer) -> Iterator[dict[str, Any]]:
    """Reads the training split as evaluation does, with what interventions make of it."""
    interventions = [callback for callback in callbacks_of(trainer) if isinstance(callback, FieldIntervention)]
    for batch in data_of(trainer).training_rows_loader():
        for intervention in interventions:
            intervention.change(batch, "train")
        yield batch
