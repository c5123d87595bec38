"""What a run needs to go on exactly where it stopped: the start of an epoch, and batches that wait for their step."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.data.loading.batch_order import rank_slice


def finish_epoch(trainer: Trainer) -> None:
    """See that a run resumed after the last batch of an epoch begins the next one; for ``on_train_start``.

    Lightning compares the batches done with the number of the new epoch, which may be another where the rows that are
    trained on have changed, and would leave out the first batches of a longer one.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch:
        loop.batch_progress.current.completed = int(trainer.num_training_batches) - 1


def global_batch(module: LightningModule, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The global batch that this rank has a share of, on the CPU; a collective call."""
    if module.trainer.world_size > 1:
        gathered = module.all_gather(batch)
        assert isinstance(gathered, dict)  # as what it gathers
        batch = {name: rows.flatten(0, 1) for name, rows in gathered.items()}
    return {name: rows.cpu() for name, rows in batch.items()}


def rank_share(module: LightningModule, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """This rank's share of a global batch, on its device."""
    share = rank_slice(len(batch["index"]), module.global_rank, module.trainer.world_size)
    return {name: rows[share].to(module.device) for name, rows in batch.items()}
