"""Validation batches of scenes as RemixerFigures sees them, without a model."""

from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ss2a.callbacks.protocols import MixesScenes
from lightning_ss2a.models import CycleMixOptions, RemixerOptions

NAMES = ["cat", "dog", "owl", "a class whose name is far too long for any cell of the table", "$ice$_cream"]
REMIXER = RemixerOptions(max_slots=16)


def make_scenes(
    counts: list[int], *, iterations: int = 0, use_global: bool = True, first: int = 0, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Outputs and batch of scenes with these numbers of sources; each scene is a function of its index alone."""
    valid = torch.arange(max(counts, default=1)) < torch.tensor(counts, dtype=torch.long)[:, None]
    attention, classes = torch.zeros(len(counts), valid.shape[1] + use_global), torch.full(valid.shape, -1)
    history = torch.zeros(len(counts), iterations)
    for row, count in enumerate(counts):
        generator = torch.Generator().manual_seed(1000 * seed + first + row)
        tokens = torch.randn(count + use_global + 1, generator=generator).softmax(0)
        attention[row, : count + use_global] = tokens[:-1]
        classes[row, :count] = torch.randint(len(NAMES), (count,), generator=generator)
        history[row] = torch.rand(iterations, generator=generator).cummax(0).values
    index = torch.arange(first, first + len(counts))
    batch = {"valid": valid, "classes": classes, "key": [f"scene{i}" for i in index.tolist()], "index": index}
    return {"attention": attention} | ({"history": history} if iterations else {}), batch


class StubData(LightningDataModule):
    """Two training batches and the validation batches given, an epoch."""

    classes = NAMES

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.zeros(2, 1), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)


class StubRemixer(LightningModule, MixesScenes):
    """What RemixerFigures reads of a module: outputs by validation batch, and SSMS once the epoch is measured."""

    def __init__(
        self,
        outputs: list[dict[str, Tensor]],
        ssms: dict[str, Tensor],
        use_global: bool = True,
        remixer: RemixerOptions = REMIXER,
        cycle_mix: CycleMixOptions | None = None,
    ) -> None:
        super().__init__()
        self.use_global, self.cycle_mix = use_global, cycle_mix or CycleMixOptions()
        self.remixer = SimpleNamespace(options=remixer)
        self.outputs, self.ssms = outputs, ssms
        self.measured: dict[str, Tensor] = {}
        self.weight = torch.nn.Parameter(torch.zeros(1))

    @property
    def ssms_by_group(self) -> dict[str, Tensor]:
        return self.measured

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight * batch).sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        return self.outputs[batch_idx]

    def on_validation_epoch_end(self) -> None:
        self.measured = self.ssms

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)
