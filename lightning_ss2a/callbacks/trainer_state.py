"""Typed access to what Lightning's trainer holds without declaring it."""

from typing import Any, cast

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import ClusterEnvironment

from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.errors import InputError

# Connectors of the trainer set these attributes, where type checkers do not see it.


def data_of(trainer: Trainer) -> ShardDataModule:
    """Returns the data module of a run.

    Raises:
        InputError: the run has none.
    """
    data: ShardDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # see above
    if data is None:
        raise InputError("this run has no data module: give the trainer a ShardDataModule as datamodule")
    return data


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Returns the callbacks of a run, in their order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # see above
    return callbacks


def cluster_environment_of(trainer: Trainer) -> ClusterEnvironment:
    """Returns what started the processes of a run: Slurm, torchrun, or Lightning itself."""
    return trainer._accelerator_connector.cluster_environment


def original_handlers_of(trainer: Trainer) -> dict[int, Any]:
    """Returns the handlers of signals that Lightning puts back when a run ends, by signal; may be changed."""
    return cast(dict[int, Any], trainer._signal_connector._original_handlers)


def is_test_drive(trainer: Trainer) -> bool:
    """Tells whether ``fast_dev_run`` only tries whether everything runs."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # see above


def is_last_batch(trainer: Trainer, batch_idx: int) -> bool:
    """Tells whether an epoch ends with this batch."""
    return batch_idx + 1 == trainer.num_training_batches


def ends_logging_interval(trainer: Trainer, count: int) -> bool:
    """Tells whether loggers write at the batch or step of this number, from 1."""
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # see above
    return interval > 0 and count % interval == 0


def is_logging_batch(trainer: Trainer, batch_idx: int) -> bool:
    """Tells whether an epoch ends with this batch, or a logging interval within the epoch."""
    return is_last_batch(trainer, batch_idx) or ends_logging_interval(trainer, batch_idx + 1)
