"""Runs the models over a list with Lightning: which process does which part, what is written when, what is shown."""

import logging
import multiprocessing
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.context import BaseContext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from lightning_ss2a.builders.engine.deaths import Deaths
from lightning_ss2a.builders.engine.media_worker import MediaNeeds, MediaParts, end_with_parent
from lightning_ss2a.builders.engine.module import PerceptionModule
from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.builders.engine.parts import BuildFolder, Part
from lightning_ss2a.builders.listing import Item

_LONGEST_WAIT = timedelta(days=30)
"""For each other at the end: processes whose clips are shorter are done sooner."""
_BAR_SECONDS, _LINE_SECONDS = 1.0, 60.0
"""Between looks at the progress, on a terminal and elsewhere."""


def make_trainer(where: BuildTrainer) -> Trainer:
    """Makes Lightning's trainer."""
    options: dict[str, Any] = {
        "accelerator": where.accelerator,
        "devices": where.devices,
        "num_nodes": where.num_nodes,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    with quiet():
        trainer = Trainer(**options)
        if trainer.world_size > 1:
            trainer = Trainer(**options, strategy=DDPStrategy(timeout=_LONGEST_WAIT))
    return trainer


class PartsData(LightningDataModule):
    """Deals the parts that are not done to the processes.

    Args:
        items: the list.
        part_items: items of a part.
        needs: what the encoders need.
        folder: where finished parts are.
        num_workers: processes that decode.
    """

    def __init__(
        self,
        items: Sequence[Item],
        part_items: int,
        needs: MediaNeeds,
        folder: BuildFolder,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.items = items
        self.part_items = part_items
        self.needs = needs
        self.folder = folder
        self.num_workers = num_workers
        self._own: list[int] = []

    @property
    def parts(self) -> int:
        """Parts of the list."""
        return -(-len(self.items) // self.part_items)

    def setup(self, stage: str) -> None:
        """Takes this process's share of what is not done.

        All see the same parts in the folder: the first process has opened it, and none writes before all have looked,
        since Lightning waits for all when it asks for loaders.
        """
        trainer = self.trainer
        assert trainer is not None
        trainer.strategy.barrier("folder is open")
        self.folder.check()
        finished = self.folder.finished()
        rest = [part for part in range(self.parts) if part not in finished]
        self._own = rest[trainer.global_rank :: trainer.world_size]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves the media where they are: the models themselves take what they need."""
        return batch

    def predict_dataloader(self) -> DataLoader:
        """Loads the media of a part at a time."""
        parts = MediaParts(self.items, self._own, self.part_items, self.needs, self.folder.deaths)
        workers = min(self.num_workers, len(parts))
        context = worker_context(MediaParts.__module__) if workers else None
        return DataLoader(
            parts,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=context,
            worker_init_fn=end_with_parent,
        )


class PartWriter(BasePredictionWriter):
    """Writes each part as soon as it is perceived.

    Args:
        folder: where parts go.
    """

    def __init__(self, folder: BuildFolder) -> None:
        super().__init__("batch")
        self.folder = folder

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Part,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes a part.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.write(prediction)


class ItemProgress(Callback):
    """Shows items done by all processes, items per second and time left; on a terminal as a bar, else a line a minute.

    Args:
        items: number of items.
        done: counts those that are done, by all processes.
    """

    def __init__(self, items: int, done: Callable[[], int]) -> None:
        self.items = items
        self._done = done
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._began = self._looked = 0.0
        self._before = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to count."""
        if not trainer.is_global_zero:
            return
        self._before, self._began = self._done(), time.monotonic()
        self._looked = self._began
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            rate = TextColumn("{task.fields[rate]:.1f} items/s")
            self._bar = Progress(*columns, rate, TimeRemainingColumn(), console=self._console, transient=True)
            self._bar.add_task("items", total=self.items, completed=self._before, rate=0.0)
            self._bar.start()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Shows how far all processes are, now and then."""
        now = time.monotonic()
        if not trainer.is_global_zero or now - self._looked < (_BAR_SECONDS if self._bar else _LINE_SECONDS):
            return
        self._looked, done = now, self._done()
        rate = (done - self._before) / (now - self._began)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, rate=rate)
        else:
            left = timedelta(seconds=round((self.items - done) / rate)) if rate else "unknown"
            print(f"{done:,} of {self.items:,} items, {rate:.1f} items/s, {left} left", file=sys.stderr, flush=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Removes the bar."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes the bar."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def perceive(where: BuildTrainer, trainer: Trainer, module: PerceptionModule, data: PartsData, progress: bool) -> bool:
    """Perceives all items that are not done; what is done lies in the folder.

    An item that ends the process that reads it is tried once more, and then rejected.

    Args:
        where: how the trainer was made.
        trainer: runs the module.
        module: perceives.
        data: what is to be done.
        progress: show it.

    Returns:
        whether this is the process that goes on, once all are done.

    Raises:
        InputError: the folder holds the unfinished build of something else; or a worker died, beside other devices.
        OSError: a part cannot be written.
    """
    while not _predict(trainer, module, data, progress):
        trainer = make_trainer(where)
    trainer.strategy.barrier("everything is perceived")
    return trainer.is_global_zero


def _predict(trainer: Trainer, module: PerceptionModule, data: PartsData, progress: bool) -> bool:
    """Tells whether it came to the end; else a worker has died of an item, which is noted."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(PartWriter(data.folder))
    if progress:
        items = len(data.items)
        callbacks.append(ItemProgress(items, lambda: min(len(data.folder.finished()) * data.part_items, items)))
    return came_to_end(trainer, module, data, data.folder.deaths)


def came_to_end(trainer: Trainer, module: LightningModule, data: LightningDataModule, deaths: Deaths) -> bool:
    """Predicts; tells whether it came to the end, else a worker has died of an item, which is counted.

    Raises:
        RuntimeError: of another cause.
        InputError: a worker has died beside other devices; see :meth:`Deaths.count`.
    """
    try:
        with quiet(), interruptible():
            trainer.predict(module, datamodule=data, return_predictions=False)
    except RuntimeError as error:
        deaths.count(error, trainer.world_size)
        return False
    return True


def worker_context(preload: str) -> BaseContext:
    """Makes what workers come from: forked from this process they would inherit its locks, threads and devices.

    Args:
        preload: module that their server imports once for all of them.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


@contextmanager
def interruptible() -> Iterator[None]:
    """Passes Ctrl-C on, where Lightning would exit, and leave this process deaf to the next one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's words about hardware and loaders back, which tell nothing about a build."""
    loggers = {name: logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*infer the batch indices.*")  # parts know their numbers
            warnings.filterwarnings("ignore", ".*across ranks is zero.*")  # nothing is left to do
            warnings.filterwarnings("ignore", ".*LeafSpec.*")
            warnings.filterwarnings("ignore", ".*srun.*")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
