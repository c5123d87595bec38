"""Measures what Cycle Mix maximises (paper, Algorithm 1)."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.analysis.probes.base import RowsProbe
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import RemixerModule


class CycleMixScore(RowsProbe[RemixerModule]):
    """Logs ``val/score/cycle_mix``: the best draw's score by the rule of the run, the mean over scenes.

    Of a Remixer that validates Cycle Mix. With the rule ``mean`` it is a mean cosine to the sources' chi(e), at most
    the norm of the mean of their directions.
    """

    stages = (RemixerModule,)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gets ready.

        Raises:
            InputError: the module is of another stage, or measures no Cycle Mix.
        """
        super().setup(trainer, pl_module, stage)
        if not self.module(pl_module).validate_cycle_mix:
            raise InputError("CycleMixScore: there is no Cycle Mix to measure; set model.validate_cycle_mix to true")

    def collect(self, batch: dict[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Picks the last best score of each scene, [scenes]."""
        return {"score": outputs["history"][:, -1]}

    def measure(self, trainer: Trainer, module: RemixerModule, rows: dict[str, Tensor]) -> dict[str, float]:
        """Computes what the class logs."""
        return {"score/cycle_mix": float(rows["score"].mean())}
