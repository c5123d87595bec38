"""Scenes whose sources are partly heard in place of seen (paper, supplement 8.2)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.analysis.interventions.base import Intervention
from lightning_ss2a.analysis.simulated_sources import draw_sources_again
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.models import DiagonalGaussian
from lightning_ss2a.models.source_slots import SourceSlots, audio_slots
from lightning_ss2a.training import RemixerModule
from lightning_ss2a.training.pretrained import load_audio_to_visual


class HeardSources(Intervention[RemixerModule]):
    """Makes a Remixer hear each source of simulated scenes with probability 1/2 while it is trained.

    What is heard is the source's own audio embedding; its v is 0, or a translator's. The global embedding is always
    seen, and validation sees all sources.

    Args:
        translator_checkpoint: checkpoint of an ``AudioToVisualModule`` that gives v; None: v = 0, as in the paper.
    """

    stages = (RemixerModule,)

    def __init__(self, translator_checkpoint: str | None = None) -> None:
        super().__init__()
        self.translator_checkpoint = translator_checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Changes what a Remixer is trained on; nothing where it is not trained."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    @contextmanager
    def changed(self, trainer: Trainer, module: RemixerModule) -> Iterator[None]:
        """Draws the sources' audio again, and changes what the module is trained on."""
        data, path = data_of(trainer), self.translator_checkpoint
        heard = torch.from_numpy(draw_sources_again(data.datasets[0], data.splits("train")[0][0]).audio)
        translate = None if path is None else load_audio_to_visual(path, "HeardSources.translator_checkpoint")

        @torch.no_grad()
        def mix(batch: Batch, seen: SourceSlots) -> SourceSlots:
            valid = batch["valid"]
            audio = heard[batch["index"].cpu()][:, : valid.shape[1]].to(batch["sources"])
            return half_heard(seen, audio_slots(audio, valid, module.manifold, translate))

        module.change_training_slots = mix
        yield
        module.change_training_slots = None


def half_heard(seen: SourceSlots, heard: SourceSlots) -> SourceSlots:
    """Mixes slots: each is heard with probability 1/2, else seen.

    Args:
        seen: slots, of which the first may be others than sources.
        heard: the sources.
    """
    first = seen.valid.shape[1] - heard.valid.shape[1]
    instead = torch.rand(heard.valid.shape).to(heard.visual.device).unsqueeze(-1) < 0.5

    def mix(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x[:, :first], torch.where(instead, y, x[:, first:])], dim=1)

    cmss = DiagonalGaussian(mix(seen.cmss.mean, heard.cmss.mean), mix(seen.cmss.log_variance, heard.cmss.log_variance))
    return SourceSlots(cmss, mix(seen.visual, heard.visual), seen.valid, seen.weight)
