"""What all training modules share: numbers of validation and test with their floors, and randomness by step."""

import os
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.seeding import mix_seed, seed_device
from lightning_ss2a.training.checks import check_kind, check_label_head, check_trainer, check_widths
from lightning_ss2a.training.resume import finish_epoch
from lightning_ss2a.training.validation.baselines import TrainingStatistics, training_statistics
from lightning_ss2a.training.validation.container import EpochMetrics


class MeasuredModule(LightningModule):
    """Validation and test with floors that are fitted on the training split and travel in the checkpoint.

    A stage says which data it takes (:attr:`DATA`) and what its numbers are (:meth:`build_validation`), and measures a
    batch (:meth:`measure`).
    """

    DATA: ClassVar[dict[str, dict[str, str]]]
    """Kinds of data sets that the module takes, and for each: which field each ``*_width`` is the width of."""

    owns_optimization = False
    """Whether clipping and accumulation have names of the module's own, since the trainer's do not reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics: TrainingStatistics | None = None
        self.validation: EpochMetrics | None = None
        self._label_head: LabelHead | None = None

    def check_data(self, data: LightningDataModule) -> None:
        """Refuse data that the model was not made for.

        Raises:
            InputError: they are of another kind, their widths are not the model's, or the label head is too small.
        """
        check_kind(data, list(self.DATA), type(self).__name__)
        check_widths(self.hparams, data, self.DATA[data.manifest.kind])
        check_label_head(self.hparams, data)

    def build_validation(self, data: LightningDataModule) -> EpochMetrics:
        """New metrics for a run."""
        raise NotImplementedError

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Add a batch to ``self.validation``; returns what figures are drawn from."""
        raise NotImplementedError

    @property
    def ssms_by_group(self) -> dict[str, Tensor]:
        """SSMS by group of validation rows in the last epoch; see :class:`EpochMetrics`."""
        return {} if self.validation is None else self.validation.ssms_by_group

    # ---------------------------------------------------------------- set-up

    def configure_callbacks(self) -> list:
        """No callbacks: the first hook that sees the trainer, and refuses what cannot work before Lightning does.

        Raises:
            InputError: a switch of the trainer that has another name here, or that is not supported.
        """
        check_trainer(self.trainer, self.owns_optimization)
        return []

    def setup(self, stage: str) -> None:
        """Check the model against the data and make the metrics, new ones each run: floors belong to one split.

        Raises:
            InputError: the data do not go with the model.
        """
        data = self.trainer.datamodule
        if stage == "fit":
            self.statistics = None  # that of another run, if any; a checkpoint to resume from brings its own later
        self.check_data(data)
        if stage == "predict":
            return
        self._label_head = data.label_head
        self.validation = self.build_validation(data)

    def on_fit_start(self) -> None:
        """Get ready to measure."""
        self._prepare_measuring()

    def on_train_start(self) -> None:
        """After the last batch of an epoch, go on with the first of the next."""
        finish_epoch(self.trainer)

    def on_validation_start(self) -> None:
        """Get ready to measure, unless fitting has."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._prepare_measuring()

    def on_test_start(self) -> None:
        """Get ready to measure."""
        self._prepare_measuring()

    def _prepare_measuring(self) -> None:
        """Fit the floors on the training split, unless a checkpoint brought them; bring all to the device, once a run.

        Setup would be too early: Lightning restores checkpoints after it.
        """
        if self.statistics is None:
            self.statistics = training_statistics(self.trainer.datamodule)
        if self.hparams.get("translator_checkpoint") is not None:
            self.statistics = self.statistics.with_translator(self.hparams.translator_checkpoint)
        self.statistics = self.statistics.to(self.device)
        if self._label_head is not None:
            self._label_head = self._label_head.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the floors' closed-form maps with the weights: validation elsewhere needs no training data."""
        if self.statistics is not None:
            checkpoint["training_statistics"] = {n: x.cpu() for n, x in self.statistics.state_dict().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the closed-form maps back."""
        if "training_statistics" in checkpoint:
            self.statistics = TrainingStatistics(**checkpoint["training_statistics"])

    # ---------------------------------------------------------------- training

    def seed_step(self, batch_idx: int) -> None:
        """Make dropout and sampling a function of (seed, epoch, batch, rank), so that a resumed run repeats them."""
        run_seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        seed_device(self.device, mix_seed(run_seed, self.current_epoch, batch_idx, self.global_rank))

    def is_last_batch(self, batch_idx: int) -> bool:
        """Whether an epoch ends with this batch."""
        return batch_idx + 1 == self.trainer.num_training_batches

    # ---------------------------------------------------------------- evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measure a batch; returns what figures are drawn from."""
        return self._measure_eagerly(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The same on the test split."""
        return self._measure_eagerly(batch)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/*`` with its floors beside it."""
        self._log_measured("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/*`` with its floors beside it."""
        self._log_measured("test")

    # Uncompiled: evaluation's batch sizes and grad modes would use up torch's limit of 8 variants of a function, after
    # which training goes on uncompiled without an error. The variants of a training step fit.
    @torch.compiler.set_stance("force_eager")
    def _measure_eagerly(self, batch: Batch) -> dict[str, Tensor]:
        return self.measure(batch)

    def _log_measured(self, prefix: str) -> None:
        values = self.validation.compute()
        self.validation.reset(baselines=self.trainer.sanity_checking)  # which sees a part of the rows only
        # Every rank holds the same numbers already: the metrics gathered them.
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()}, sync_dist=False)
