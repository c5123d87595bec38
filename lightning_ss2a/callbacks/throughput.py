"""Rows per second, and an early stop for a loss that is not finite."""

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ss2a.callbacks.trainer_state import data_of, is_logging_batch
from lightning_ss2a.errors import InputError


class Throughput(Callback):
    """Logs ``train/pairs_per_second`` (all ranks together) and stops when ``train/loss`` is not finite.

    Of scenes and videos it is ``train/scenes_per_second`` and ``train/videos_per_second``. The rate is a mean over the
    steps since the last log, by the wall clock, validation left out. Nothing is read from the GPU: the clock is looked
    at only where the logger reads the loss anyway.

    Raises:
        InputError: the loss at a logging step is NaN or infinite.
    """

    def __init__(self) -> None:
        self._start = 0.0
        self._rows = 0
        self._validation_start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; a run resumed in the middle of an epoch sees no start of that epoch."""
        self._restart()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restarts the clock, so that validation and set-up do not count."""
        self._restart()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock: validation may come in the middle of an epoch."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock again where it was stopped."""
        self._start += time.perf_counter() - self._validation_start

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict, batch_idx: int
    ) -> None:
        """Counts the batch; logs at the trainer's logging steps and at the end of an epoch."""
        self._rows += len(batch["index"]) * trainer.world_size
        if not is_logging_batch(trainer, batch_idx):
            return
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and not math.isfinite(loss):
            # The manifold clips by itself: the trainer's switch does not reach two optimisers.
            automatic = pl_module.automatic_optimization
            clipping = "trainer.gradient_clip_val" if automatic else "model.optimization.gradient_clip_norm"
            raise InputError(
                f"train/loss is {float(loss)} in epoch {trainer.current_epoch}, batch {batch_idx}: lower "
                f"model.optimization.learning_rate, set {clipping}, or look at the data with `ss2a shards validate`"
            )
        seconds = time.perf_counter() - self._start
        kind = data_of(trainer).manifest.kind  # pairs, scenes or videos
        pl_module.log(f"train/{kind}_per_second", self._rows / seconds, rank_zero_only=True)
        self._restart()

    def _restart(self) -> None:
        self._start, self._rows = time.perf_counter(), 0
