"""How the trainer writes and reads checkpoints."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer

from lightning_ss2a.checkpoints import read_undamaged
from lightning_ss2a.files import WholeFile, is_local, to_path


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads only what is undamaged, without unpickling.

    Lightning's own writes a temporary file that may be on another file system, so that to move it truncates the old
    checkpoint first, and says nothing where it may not write. Here the file is written beside the old one, is on the
    disk, and then takes its name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Writes a file, or at a URL what fsspec writes there.

        Raises:
            OSError: it cannot be written; names the file. What was there before is there still.
        """
        content = io.BytesIO()  # torch.save would hide the file system's errors
        torch.save(checkpoint, content)
        if not is_local(path):
            file_system, remote = fsspec.core.url_to_fs(str(path))
            file_system.pipe_file(remote, content.getvalue())
            return
        file = to_path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with WholeFile(file, durable=True) as stream:
            stream.write(content.getbuffer())

    def load_checkpoint(
        self, path: _PATH, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint onto the CPU, whatever the options.

        Raises:
            InputError: there is none, it is damaged, or holds what only unpickling could read.
        """
        return read_undamaged(str(path), "checkpoint")


def save_untrained(module: LightningModule, path: Path) -> Path:
    """Saves a module as a run would before its first step, so that it can be measured, and trained from there.

    Args:
        module: with its weights.
        path: the checkpoint; its folder is made if it is not there.

    Returns:
        The checkpoint.

    Raises:
        OSError: it cannot be written.
    """
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)  # what devices there are tells nothing here
    try:
        trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    finally:
        logger.setLevel(level)
    trainer.strategy.connect(module)
    use_whole_checkpoints(trainer)
    trainer.save_checkpoint(path, weights_only=False)
    return path


def use_whole_checkpoints(trainer: Trainer) -> None:
    """Lets a trainer write and read checkpoints by :class:`WholeCheckpointIO`, unless it was given a way of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
