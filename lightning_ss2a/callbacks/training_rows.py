"""Change, between two epochs, which rows a running fit trains on."""

import numpy as np
from lightning.pytorch import Trainer


def train_on(trainer: Trainer, rows: np.ndarray | None) -> None:
    """Train on these rows from the epoch that starts now.

    For ``on_fit_start``, ``on_train_start`` and ``on_train_epoch_start``. Lightning asks for the loader before these,
    so one that it already has is made anew: an epoch over other rows has another number of batches.

    Args:
        trainer: a trainer that fits, with a ``ShardDataModule``.
        rows: row numbers, int64, increasing; None: all.

    Raises:
        InputError: they do not fill one batch.
    """
    data = trainer.datamodule
    if np.array_equal(_or_none(data.selected_training_rows), _or_none(rows)):
        return
    data.select_training_rows(rows)
    loop = trainer.fit_loop
    if loop._combined_loader is not None:
        loop._combined_loader = None  # otherwise Lightning reloads at fixed intervals only
        loop.setup_data()
        progress = loop.epoch_loop.batch_progress
        if loop.epoch_loop.restarted_on_train_batch_end and progress.is_last_batch:
            # Resumed after the last batch of an epoch, which Lightning tells by the number of batches of the new one.
            progress.current.completed = loop.max_batches - 1


def _or_none(rows: np.ndarray | None) -> np.ndarray:
    return np.array([-1]) if rows is None else rows
