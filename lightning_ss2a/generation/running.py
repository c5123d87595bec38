"""Runs generation over many items with Lightning: which process makes which, what is written when, what is shown."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader

from lightning_ss2a.builders.engine.deaths import Deaths
from lightning_ss2a.builders.engine.media_worker import end_with_parent
from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.builders.engine.running import ItemProgress, came_to_end, make_trainer, worker_context
from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.files import write_whole
from lightning_ss2a.generation.items import Item
from lightning_ss2a.generation.module import Failed, GenerationModule, Made
from lightning_ss2a.generation.outputs import Maker, digest_of, is_made, write_made
from lightning_ss2a.generation.own_process import OwnProcess
from lightning_ss2a.generation.scene.media import ItemBatches, MediaReading

WORK = ".generate"
"""Folder in that of the outputs, while they are made: what became of each item that this call has looked at."""


class WorkFolder:
    """What became of items, for all processes to see.

    Args:
        output: folder of the outputs.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output / WORK
        self.deaths = Deaths(self.folder / "deaths")

    def clear(self) -> None:
        """Makes the folder, empty but for the deaths of a call that could not go on."""
        self.folder.mkdir(exist_ok=True)
        for leftover in self.folder.glob("*.*"):
            leftover.unlink()
        self.deaths.forget_work()

    def note(self, item: Item, state: str, reason: str = "") -> None:
        """Notes what became of an item: ``made``, ``kept`` or ``failed``."""
        told = {"state": state, "key": item.key, "place": item.place, "reason": reason}
        write_whole(self.folder / f"{item.key}.json", json.dumps(told))

    def count(self) -> int:
        """Counts the items that something became of."""
        return sum(1 for _ in self.folder.glob("*.json"))

    def states(self) -> dict[str, dict[str, str]]:
        """Reads what became of items, by key."""
        told = [json.loads(path.read_bytes()) for path in self.folder.glob("*.json")]
        return {each["key"]: each for each in told}

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder)


class ItemsData(LightningDataModule):
    """Deals the items to the processes, and leaves out what is made already.

    Args:
        items: the list.
        batch_size: items at once.
        reading: how media are read.
        maker: what they are made by.
        output: folder of the outputs.
        work: where is noted what became of them.
        num_workers: processes that decode.

    Attributes:
        requests: what is asked for, by key of the item, of those that this process makes.
    """

    def __init__(
        self,
        items: Sequence[Item],
        batch_size: int,
        reading: MediaReading,
        maker: Maker,
        output: Path,
        work: WorkFolder,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.items, self.batch_size, self.reading, self.maker = items, batch_size, reading, maker
        self.output, self.work, self.num_workers = output, work, num_workers
        self.requests: dict[str, dict[str, Any]] = {}
        self._own: list[Item] = []

    def setup(self, stage: str) -> None:
        """Takes this process's share of what is not made, and of which this call does not know what became of it."""
        trainer = self.trainer
        assert trainer is not None
        trainer.strategy.barrier("the folder of work is empty")
        share, known = self.items[trainer.global_rank :: trainer.world_size], self.work.states()
        self._own = [item for item in share if item.key not in known and self._is_wanted(item)]

    def _is_wanted(self, item: Item) -> bool:
        """Describes what is asked for; notes what is made already, and what cannot be."""
        try:
            request = self.maker.request(item)
        except InputError as error:
            self.work.note(item, "failed", one_line(error))
            return False
        if is_made(self.output, item, digest_of(request)):
            self.work.note(item, "kept")
            return False
        self.requests[item.key] = request
        return True

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves the media where they are: the models themselves take what they need."""
        return batch

    def predict_dataloader(self) -> DataLoader:
        """Loads the media of a batch at a time."""
        loaded = ItemBatches(self._own, self.batch_size, self.reading, self.work.deaths)
        workers = min(self.num_workers, len(loaded)) if len(self.items) > 1 else 0  # one alone may end its own process
        return DataLoader(
            loaded,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=worker_context(ItemBatches.__module__) if workers else None,
            worker_init_fn=end_with_parent,
        )


class SoundWriter(BasePredictionWriter):
    """Writes the files of items as soon as they are made.

    Args:
        data: knows what was asked for.
        process: copies the pictures of videos.
    """

    def __init__(self, data: ItemsData, process: OwnProcess) -> None:
        super().__init__("batch")
        self.data, self.process = data, process

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: list[Made | Failed],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the items of a batch.

        Raises:
            OSError: a file cannot be written.
        """
        for each in prediction:
            if isinstance(each, Failed):
                self.data.work.note(each.item, "failed", each.reason)
                continue
            try:
                request = self.data.requests[each.item.key]
                told = write_made(self.data.output, each, request, self.data.maker, self.process)
            except InputError as error:
                self.data.work.note(each.item, "failed", one_line(error))
            else:
                self.data.work.note(each.item, "made", told["sound"].get("note", ""))


def make_all(
    where: BuildTrainer,
    trainer: Trainer,
    module: GenerationModule,
    data: ItemsData,
    process: OwnProcess,
    progress: bool,
) -> bool:
    """Makes the sounds of all items that are not made; what became of each is noted in the folder of work.

    An item that ends the process that reads it is tried once more, and has failed then.

    Args:
        where: how the trainer was made.
        trainer: runs the module.
        module: makes sounds.
        data: what is to be made.
        process: copies the pictures of videos.
        progress: show it.

    Returns:
        whether this is the process that goes on, once all are done.

    Raises:
        InputError: the device's memory does not hold a batch; or a worker died, beside other devices.
        OSError: a file cannot be written.
    """
    while not _predict(trainer, module, data, process, progress):
        trainer = make_trainer(where)
    trainer.strategy.barrier("everything is made")
    return trainer.is_global_zero


def _predict(trainer: Trainer, module: GenerationModule, data: ItemsData, process: OwnProcess, progress: bool) -> bool:
    """Tells whether it came to the end; else a worker has died of an item, which is noted."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(SoundWriter(data, process))
    if progress:
        callbacks.append(ItemProgress(len(data.items), data.work.count))
    return came_to_end(trainer, module, data, data.work.deaths)
