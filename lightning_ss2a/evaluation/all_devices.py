"""Hears the sounds of an evaluation on several devices: each process fills the cache with a share of the files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.builders.engine.running import interruptible, make_trainer, quiet
from lightning_ss2a.evaluation.folders import REFERENCE
from lightning_ss2a.evaluation.gathering import see_pictures
from lightning_ss2a.evaluation.hearing import Listener, hear_files, hear_offsets
from lightning_ss2a.evaluation.options import HearingTrainer
from lightning_ss2a.evaluation.planning import HearingPlan, Protocol


def fill_cache(plan: HearingPlan, protocol: Protocol, listener: Listener, where: HearingTrainer) -> bool:
    """Hears and sees on all devices what an evaluation needs, so that it finds all of it in the cache.

    A file goes to one process by its place in the order of names, with the offset of each of its pairs. What cannot be
    heard is not cached, and is tried once more, and told, by the process that goes on. Models with a ``device`` run on
    that of their process.

    Args:
        plan: what is heard.
        protocol: whose encoders see pictures and tell offsets.
        listener: how; its cache is shared by all processes.
        where: the devices.

    Returns:
        Whether this is the process that goes on, once all is heard; the others have nothing more to do.

    Raises:
        InputError: a model is missing, or cannot run.
        OSError: the cache cannot be written.
    """
    plan.check()
    trainer = make_trainer(BuildTrainer(where.accelerator, where.devices, where.num_nodes, threads=where.threads))
    module = HearingModule(plan, protocol, listener, where.threads)
    data = Shares(plan.files, plan.picture_files)
    with quiet(), interruptible():
        trainer.predict(module, datamodule=data, return_predictions=False)
    trainer.strategy.barrier("everything is heard")
    return trainer.is_global_zero


class Shares(LightningDataModule):
    """Deals sounds and pictures to the processes; each gets all of its share at once.

    Args:
        sounds: the files.
        pictures: paths.
    """

    def __init__(self, sounds: Sequence[Path], pictures: Sequence[str]) -> None:
        super().__init__()
        self.sounds, self.pictures = sounds, pictures

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves the paths what they are."""
        return batch

    def predict_dataloader(self) -> DataLoader:
        """Gives this process's sounds and pictures as the one batch."""
        trainer = self.trainer
        assert trainer is not None
        own = slice(trainer.global_rank, None, trainer.world_size)
        return DataLoader([(self.sounds[own], self.pictures[own])], batch_size=None)  # type: ignore[arg-type]


class HearingModule(LightningModule):
    """Hears and sees a share of the files, and leaves everything in the cache.

    Args:
        plan: what is heard.
        protocol: whose encoders see pictures and tell offsets.
        listener: how.
        threads: of the computations on a processor.
    """

    def __init__(self, plan: HearingPlan, protocol: Protocol, listener: Listener, threads: int) -> None:
        super().__init__()
        self.plan, self.protocol, self.listener, self.threads = plan, protocol, listener, threads

    def on_predict_start(self) -> None:
        """Brings the models to this process's device."""
        torch.set_num_threads(self.threads)
        for model in self.plan.models.values():
            if hasattr(model, "device"):
                model.device = str(self.device)
        self.plan.load(self.protocol)

    @torch.inference_mode()
    def predict_step(self, batch: tuple[Sequence[Path], Sequence[str]], batch_idx: int) -> int:
        """Hears the sounds, with the methods' offsets from videos, and sees the pictures; counts the sounds."""
        sounds, pictures = batch
        listener = replace(self.listener, progress=self.listener.progress and self.trainer.is_global_zero)
        heard = hear_files(sounds, self.plan.here, listener)
        if pictures and self.protocol.image_encoder is not None:
            see_pictures(pictures, self.protocol.image_encoder, self.protocol.crop_shape, listener)
        if "videos" in self.plan.needs and self.protocol.sync is not None:
            methods = [name for name in self.plan.places if name != REFERENCE]
            pairs = {pair for name in methods for pair in self.plan.pairs(name, self.plan.sounds[name]) if pair}
            own = [pair for pair in pairs if pair[0] in heard.content]
            hear_offsets(own, heard.content, self.protocol.sync, listener)
        return len(heard.content)
