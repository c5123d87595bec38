"""Where a run's output goes: its folder, and TensorBoard."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


def run_folder(trainer: Trainer) -> Path:
    """The run's folder; a collective call, so every rank makes it."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def tensorboard_writers(trainer: Trainer) -> list[Any]:
    """Writer of each TensorBoard logger; they write on rank zero only."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
