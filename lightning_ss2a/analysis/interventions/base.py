"""What interventions share: changes of a module that end with its run, and other values of some fields of batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.analysis.stage_callback import M, StageCallback
from lightning_ss2a.callbacks.trainer_state import callbacks_of, data_of
from lightning_ss2a.training.base import MeasuredModule
from lightning_ss2a.training.validation.baselines import fit_training_statistics


class Intervention(StageCallback[M], ABC):
    """Changes a module for the length of a run, however the run ends."""

    def __init__(self) -> None:
        self._change = ExitStack()

    @abstractmethod
    def changed(self, trainer: Trainer, module: M) -> AbstractContextManager[None]:
        """Changes the module while the context lasts, and makes it as it was."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Changes the module.

        Raises:
            InputError: it is of another stage.
        """
        self._change.enter_context(self.changed(trainer, self.module(pl_module)))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the module as it was."""
        self._change.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Makes the module as it was."""
        self._change.close()


class FieldIntervention(StageCallback[MeasuredModule], ABC):
    """Trains and measures with other values of some fields, as if the data set held them."""

    @abstractmethod
    def fields(self, trainer: Trainer, split: str) -> dict[str, Tensor]:
        """Makes values [rows, ...] of a split by field, in the order of its rows; none: nothing is changed."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the values of the splits that are read.

        Raises:
            InputError: the module is of another stage.
        """
        super().setup(trainer, pl_module, stage)
        read = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ())
        self._values = {part: self.fields(trainer, data_of(trainer).splits(part)[0][0]) for part in read}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fits the baselines on the values."""
        if any(self._values.values()):
            self.module(pl_module).statistics = fit_training_statistics(changed_training_batches(trainer))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Changes a batch."""
        self.change(batch, "train")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
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
