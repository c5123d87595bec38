"""A run's outputs: its folder, and TensorBoard."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_ss2a.files import local_path, naming

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter


def run_folder(trainer: Trainer) -> Path:
    """Names the run's folder; a collective call, so every rank makes it."""
    return Path(local_path(trainer.log_dir or trainer.default_root_dir))


def name_event_files_in_errors() -> None:
    """Lets errors of TensorBoard's writer (a full disk, a quota, a limit) name the file, in this process from now on.

    They come from a thread of its own, and end the run at the next number that is logged.
    """
    from tensorboard.compat.tensorflow_stub.io import gfile

    class NamingFileSystem(gfile.LocalFileSystem):
        def write(self, filename: bytes, file_content: bytes, binary_mode: bool = False) -> None:
            with naming(os.fsdecode(filename)):
                super().write(filename, file_content, binary_mode)

        def append(self, filename: bytes, file_content: bytes, binary_mode: bool = False) -> None:
            with naming(os.fsdecode(filename)):
                super().append(filename, file_content, binary_mode)

    gfile.register_filesystem("", NamingFileSystem())


def tensorboard_writers(trainer: Trainer) -> "list[SummaryWriter]":
    """Finds the writer of each TensorBoard logger on rank zero; on other ranks there is none."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def add_figures(trainer: Trainer, draw: "Callable[[], Mapping[str, Figure]]") -> None:
    """Shows figures in TensorBoard as ``figures/NAME``, drawn only where they are written.

    Args:
        trainer: the trainer of the run.
        draw: draws the figures, by name.
    """
    writers = tensorboard_writers(trainer)
    for name, figure in draw().items() if writers else ():
        for writer in writers:
            writer.add_figure(f"figures/{name}", figure, trainer.global_step)
