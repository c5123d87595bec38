"""Ctrl-C that loses nothing."""

import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class GracefulInterrupt(Callback):
    """On Ctrl-C (or SIGTERM), finish the step, save ``interrupted.ckpt`` in the run folder and stop.

    Lightning's own handling stops between two lines of Python: one optimiser may have moved and the other not. Here the
    signal only leaves a note, which is read where a step is complete, so that the checkpoint resumes exactly. A second
    Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self._asked = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for the signals while training."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._ask)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, if asked to and no batch waits for its step."""
        # A rank that was asked must not stop alone while the others wait in a collective.
        asked = trainer.strategy.reduce_boolean_decision(self._asked, all=False)
        if not asked or getattr(pl_module, "has_pending_batches", False):
            return
        path = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "interrupted.ckpt"
        trainer.save_checkpoint(path)
        rank_zero_info(f"\nInterrupted. Go on with the same command and --ckpt_path {path}")
        raise KeyboardInterrupt

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        rank_zero_info("\nFinishing this step, then saving. Ctrl-C again stops at once.")
