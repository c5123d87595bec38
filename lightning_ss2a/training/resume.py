"""What a run needs to go on exactly where it stopped: its place in an epoch, waiting batches, the best so far."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_ss2a.checkpoints import read_undamaged
from lightning_ss2a.data.loading.batch_order import rank_slice
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import is_local, local_path


def restore_position(checkpoint: dict[str, Any], accumulate_batches: int | None) -> None:
    """Make a checkpoint say in Lightning's counters where its run goes on; for ``on_load_checkpoint``.

    A limit (``max_steps``, ``max_time``) ends Lightning's epoch in its middle, and counts it as done; and a checkpoint
    from a validation, or from after an epoch, has another number of logged steps than one from between two batches.
    Here each one from within an epoch becomes what ``on_train_batch_end`` would have saved.

    Args:
        checkpoint: of a fit; changed in place.
        accumulate_batches: batches whose gradients Lightning gathers for a step. It forgets those that wait; they are
            trained on again. None: the module steps, and keeps what waits, by itself.
    """
    loops = checkpoint["loops"]["fit_loop"]
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    if batches["is_last_batch"]:
        if epochs["current"]["processed"] == epochs["current"]["ready"]:
            for count in (epochs["total"], epochs["current"]):
                count["completed"] = count["processed"]
        return
    if batches["current"]["processed"] == 0:
        return
    waiting = batches["current"]["processed"] % (accumulate_batches or 1)
    for count in (epochs["total"], epochs["current"]):
        count["processed"] = count["completed"] = count["ready"] - 1
    for count in (batches["total"], batches["current"]):
        done = count["processed"] - waiting  # one more may be ready, where an error has ended it
        count.update(ready=done, started=done, processed=done, completed=done - 1)
    steps = batches["total"]["ready"] if accumulate_batches is None else checkpoint["global_step"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - 1
    checkpoint["epoch"] = epochs["current"]["completed"]


def finish_epoch(trainer: Trainer) -> None:
    """See that a run resumed after the last batch of an epoch begins the next one; for ``on_train_start``.

    Lightning compares the batches done with the number of the new epoch, which may be another where the rows that are
    trained on have changed, and would leave out the first batches of a longer one. With ``max_steps`` it would end an
    epoch again that had ended.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch:
        loop.batch_progress.current.completed = int(trainer.num_training_batches) - 1
    if not trainer.fit_loop.restarted_mid_epoch:
        loop.restarting = False


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


def carry_over_best(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Lets each ``ModelCheckpoint`` know the best of the run that is resumed; for ``on_load_checkpoint``, a collective.

    Lightning forgets the scores where the folder is another one, as of each resumed run, and would call the best of the
    resumed part the best of all. A best file counts only where it still is, or lies beside the checkpoint that is
    resumed (the folder was moved), and only with the model that had the score: a run that went on has replaced it.
    """
    for callback in trainer.checkpoint_callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if state is None or not isinstance(callback, ModelCheckpoint):
            continue
        resumed = str(trainer.ckpt_path)
        found = {_find(path, resumed): score for path, score in state["best_k_models"].items()}
        if trainer.is_global_zero:  # which reads each file for all ranks
            found = {p: score for p, score in found.items() if p and _has_score(p, callback.state_key, score)}
        kept = trainer.strategy.broadcast(found)
        best = max(kept, key=lambda path: kept[path] * (1 if callback.mode == "max" else -1), default="")
        if len(kept) < len(state["best_k_models"]):  # the worst of k is known only where there are k
            state |= {"kth_best_model_path": callback.kth_best_model_path, "kth_value": callback.kth_value}
        else:
            state["kth_best_model_path"] = _find(state["kth_best_model_path"], resumed)
        state |= {
            "dirpath": callback.dirpath,
            "best_k_models": kept,
            "best_model_path": _find(state["best_model_path"], resumed) if callback.monitor is None else best,
            "best_model_score": kept.get(best),
            "last_model_path": _find(state["last_model_path"], resumed),
        }


def _find(path: str, resumed: str) -> str:
    """A checkpoint where it was or beside the one that is resumed; empty if there is none."""
    if not path or not is_local(path):
        return path
    places = (path, str(Path(local_path(resumed)).with_name(Path(path).name)))
    return next((place for place in places if Path(local_path(place)).is_file()), "")


def _has_score(path: str, callback: str, score: Tensor) -> bool:
    """Whether a checkpoint was saved with a score; one of weights alone does not tell, and is believed."""
    try:
        states = read_undamaged(path, "checkpoint", mmap=True).get("callbacks", {})
    except InputError:
        return False
    return bool(states.get(callback, {}).get("current_score", score) == score)
