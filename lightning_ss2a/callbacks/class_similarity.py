"""How much of the similarity of a simulated world's classes a manifold keeps."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.data.simulation.truth import read_world
from lightning_ss2a.metrics.functional.class_linkage import class_linkage, class_sums

SIDES = {"visual": (0, 0), "audio": (1, 1), "cross": (0, 1)}
"""Modalities that are compared: 0 is visual, 1 audio."""


class ClassSimilarity(Callback):
    """Logs ``val/class_rank/TREE/SIDES``, of a manifold and simulated pairs.

    Spearman's rank correlation, over all pairs of classes that have validation rows, between the average cosine of two
    classes' CMSS embeddings and that of the two classes in the world's tree of ``sounds`` or of ``looks``. ``SIDES``
    are the embeddings compared: ``visual``, ``audio``, or ``cross``, one of each.

    Memory stays that of one embedding a class and modality, whatever the number of rows.
    """

    def __init__(self) -> None:
        self._sums: list[Tensor] | None = None
        self._counts: Tensor | None = None
        self._trees: dict[str, np.ndarray] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the truth.

        Raises:
            InputError: the data set is not simulated.
        """
        world = read_world(trainer.datamodule.datasets[0])
        prototypes = {"sounds": world.audio.prototypes, "looks": world.visual.prototypes}
        self._trees = {name: rows @ rows.T for name, rows in prototypes.items()}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._sums = self._counts = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor],
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the embeddings of a batch to those of their classes."""
        classes, number = batch["class_index"], len(self._trees["sounds"])
        sums = [class_sums(outputs[f"{name}_embedding"], classes, number) for name in ("visual", "audio")]
        counts = torch.bincount(classes.long(), minlength=number)
        if self._sums is not None:
            sums = [one + other for one, other in zip(self._sums, sums, strict=True)]
            counts = self._counts + counts
        self._sums, self._counts = sums, counts

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the correlations, of the rows of all ranks."""
        from scipy.stats import spearmanr  # slow to import

        counts, *sums = (trainer.strategy.reduce(x, reduce_op="sum") for x in (self._counts, *self._sums))
        if trainer.sanity_checking or int((counts > 0).sum()) < 3:  # no pair of pairs to correlate
            return
        for side, (one, other) in SIDES.items():
            linkage = class_linkage(sums[one], sums[other], counts)
            linkage = (linkage + linkage.T) / 2
            upper = np.triu(np.isfinite(linkage), 1)
            for tree, similarity in self._trees.items():
                value = float(spearmanr(linkage[upper], similarity[upper]).statistic)
                pl_module.log(f"val/class_rank/{tree}/{side}", value, rank_zero_only=False)
