"""The rows that a running fit trains on, changed between two epochs."""

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.errors import InputError


def train_on(trainer: Trainer, rows: np.ndarray | None) -> None:
    """Trains on these rows from the epoch that starts now.

    For ``on_fit_start``, ``on_train_start`` and ``on_train_epoch_start``. Lightning asks for the loader before these,
    so one that it already has is made anew: an epoch over other rows has another number of batches.

    Args:
        trainer: a trainer that fits, with a ``ShardDataModule``.
        rows: row numbers, int64, increasing; None: all.

    Raises:
        InputError: they do not fill one batch, or make fewer batches than a switch of the trainer asks for.
    """
    data = data_of(trainer)
    if np.array_equal(_or_none(data.selected_training_rows), _or_none(rows)):
        return
    data.select_training_rows(rows)
    loop = trainer.fit_loop
    loaded, loop._combined_loader = loop._combined_loader, None  # otherwise Lightning reloads at fixed intervals only
    _reload(trainer)
    if loaded is None:
        loop._combined_loader = None  # it was only a check: Lightning loads later, with the state to resume from


def begins_epoch(trainer: Trainer) -> bool:
    """Tells whether training, at ``on_train_start``, begins with the first batch of an epoch.

    A checkpoint from the last batch of an epoch resumes in the next one, and without ``on_train_epoch_start``.
    """
    loop = trainer.fit_loop
    return not loop.restarted_mid_epoch or loop.epoch_loop.batch_progress.is_last_batch


def _reload(trainer: Trainer) -> None:
    try:
        trainer.fit_loop.setup_data()
    except InputError:
        raise
    except (ValueError, MisconfigurationException) as error:  # switches of the trainer that count batches
        batches = len(data_of(trainer).train_dataloader())
        raise InputError(
            f"an epoch over the rows that are selected now (EMATeacher, PairFilter) has only {batches} batches, too "
            "few for trainer.val_check_interval or trainer.limit_train_batches; use fractions that leave one batch, or "
            "set trainer.check_val_every_n_epoch=null to count batches through epochs"
        ) from error


def _or_none(rows: np.ndarray | None) -> np.ndarray:
    return np.array([-1]) if rows is None else rows
