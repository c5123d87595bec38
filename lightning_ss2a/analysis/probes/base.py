"""What probes share: collecting the rows of a validation epoch, and scoring more predictions of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.analysis.stage_callback import M, StageCallback
from lightning_ss2a.errors import InputError
from lightning_ss2a.training.validation.predicted_audio import BySources
from lightning_ss2a.training.validation.targets import Targets, targets_of


class Probe(StageCallback[M]):
    """A callback that measures in one process."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gets ready.

        Raises:
            InputError: the module is of another stage, or several processes share the validation rows.
        """
        super().setup(trainer, pl_module, stage)
        if trainer.world_size > 1:
            raise InputError(f"{type(self).__name__} measures in one process; set trainer.devices to 1")

    def log_numbers(self, trainer: Trainer, pl_module: LightningModule, numbers: Mapping[str, float | Tensor]) -> None:
        """Logs numbers as ``val/NAME``; nothing of the few rows that a sanity check sees."""
        if not trainer.sanity_checking:
            pl_module.log_dict({f"val/{name}": float(number) for name, number in numbers.items()})


class RowsProbe(Probe[M], ABC):
    """Measures all rows of a validation epoch at once; memory grows with their number."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Tensor]] = []

    @abstractmethod
    def collect(self, batch: dict[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Picks tensors [rows, ...] of a batch and of what the module's validation step returned."""

    @abstractmethod
    def measure(self, trainer: Trainer, module: M, rows: dict[str, Tensor]) -> dict[str, float]:
        """Computes numbers by name from what was collected of all rows."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._parts = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects."""
        self._parts.append({name: rows.detach() for name, rows in self.collect(batch, outputs).items()})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and logs."""
        rows = {name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]}
        self._parts = []
        if not trainer.sanity_checking:
            self.log_numbers(trainer, pl_module, self.measure(trainer, self.module(pl_module), rows))


class PredictionProbe(Probe[M], ABC):
    """Scores more predictions of the validation rows, as the module scores its own.

    Predictions are named by the suffix of their metrics: ``/draw`` gives ``val/ssms/draw`` and, where rows show one or
    several sources, ``val/ssms/single/draw`` and so on; ``_baseline/NAME`` gives the baseline ``NAME``.
    """

    def __init__(self) -> None:
        self._scores: dict[str, BySources] = {}

    @abstractmethod
    def predict(self, module: M, batch: dict[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Predicts audio embeddings [rows, audio width], by suffix."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._scores = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Scores a batch."""
        if trainer.sanity_checking:
            return
        module, targets = self.module(pl_module), targets_of(batch)
        head, measuring = module.label_head, module.measuring
        assert measuring is not None  # all stages that predict audio have it
        for suffix, predicted in self.predict(module, batch, targets).items():
            if suffix not in self._scores:
                scores = BySources(measuring.top_n, head is not None, targets.visual is not None)
                self._scores[suffix] = scores.to(module.device)
            self._scores[suffix].update(predicted, targets, module.statistics, head)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the scores."""
        for suffix, scores in self._scores.items():
            numbers = {f"{metric}{suffix}": value for metric, value in scores.compute().items()}
            self.log_numbers(trainer, pl_module, numbers)
