"""What a run does differently as a part of a trial."""

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ss2a.callbacks import HyperparameterBoard

Ask = Callable[[int, float], bool]
"""Takes epochs done and a value, tells whether to stop."""


class TrialCallback(Callback):
    """Reports the validations of a metric, and stops the run when told to; takes out the run's own HParams board.

    Every rank of a run has one and they stop together; rank zero alone reports.

    Args:
        reported: metric to report at each validation; None: none.
        ask: asks whether to stop; None: another rank does.
        is_alive: called after each batch.
    """

    def __init__(self, reported: str | None, ask: Ask | None, is_alive: Callable[[], None] = lambda: None) -> None:
        self.pruned = False
        self._reported, self._ask, self._is_alive = reported, ask, is_alive

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the HParams tab to the study, which fills it with what it varies."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # a connector of Lightning's sets it
        others = [callback for callback in callbacks if not isinstance(callback, HyperparameterBoard)]
        trainer.callbacks = others  # type: ignore[attr-defined]  # as above; not in place, it is being looped over

    def on_train_batch_end(self, *_: Any) -> None:
        """Say that the run moves on."""
        self._is_alive()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Say that the run moves on."""
        self._is_alive()

    def on_test_batch_end(self, *_: Any) -> None:
        """Say that the run moves on."""
        self._is_alive()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the value; callback_metrics has it from here on."""
        if self._reported is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value, stop = float(trainer.callback_metrics.get(self._reported, math.nan)), False
        if self._ask is not None and trainer.is_global_zero and not math.isnan(value):
            stop = self._ask(trainer.current_epoch + 1, value)
        if trainer.strategy.broadcast(stop):
            self.pruned = trainer.should_stop = True
