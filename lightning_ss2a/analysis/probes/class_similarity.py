"""Measures how much of the similarity of a simulated world's classes a manifold keeps."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_ss2a.analysis.stage_callback import StageCallback
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.simulation.truth import read_world
from lightning_ss2a.metric_names import baseline_metric
from lightning_ss2a.metrics.functional.class_linkage import class_linkage, class_sums
from lightning_ss2a.training import ManifoldModule

SIDES = {
    "visual": ("visual", "visual"),
    "audio": ("audio", "audio"),
    "cross": ("visual", "audio"),
    baseline_metric("visual", "raw"): ("raw_visual", "raw_visual"),
    baseline_metric("audio", "raw"): ("raw_audio", "raw_audio"),
}
"""Embeddings that are compared, by the name that their number gets."""


class ClassSimilarity(StageCallback[ManifoldModule]):
    """Logs ``val/class_rank/TREE/SIDES``, of a manifold and simulated pairs.

    Spearman's rank correlation, over all pairs of classes that have validation rows, between the average cosine of two
    classes' CMSS embeddings and that of the two classes in the world's tree of ``sounds`` or of ``looks``. ``SIDES``
    are the embeddings compared: ``visual``, ``audio``, or ``cross``, one of each. The baseline ``raw`` of the first two
    is that of the encoders' embeddings.

    Memory stays that of one embedding a class and modality, whatever the number of rows.
    """

    stages = (ManifoldModule,)

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._trees: dict[str, np.ndarray] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the truth.

        Raises:
            InputError: the module is of another stage, or the data set is not simulated.
        """
        super().setup(trainer, pl_module, stage)
        world = read_world(data_of(trainer).datasets[0])
        prototypes = {"sounds": world.audio.prototypes, "looks": world.visual.prototypes}
        self._trees = {name: rows @ rows.T for name, rows in prototypes.items()}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._sums = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds the embeddings of a batch to those of their classes."""
        classes, number = batch["class_index"], len(self._trees["sounds"])
        sums = {"counts": torch.bincount(classes.long(), minlength=number)}
        for name in ("visual", "audio"):
            sums[name] = class_sums(outputs[f"{name}_embedding"], classes, number)
            sums[f"raw_{name}"] = class_sums(batch[name], classes, number)
        self._sums = {name: self._sums[name] + rows if self._sums else rows for name, rows in sums.items()}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the correlations, of the rows of all ranks."""
        from scipy.stats import spearmanr  # slow to import

        sums = {name: trainer.strategy.reduce(rows, reduce_op="sum") for name, rows in self._sums.items()}
        counts = sums["counts"]
        if trainer.sanity_checking or int((counts > 0).sum()) < 3:  # no pair of pairs to correlate
            return
        for side, (one, other) in SIDES.items():
            linkage = class_linkage(sums[one], sums[other], counts)
            linkage = (linkage + linkage.T) / 2
            upper = np.triu(np.isfinite(linkage), 1)
            for tree, similarity in self._trees.items():
                value = float(spearmanr(linkage[upper], similarity[upper]).statistic)
                pl_module.log(f"val/class_rank/{tree}/{side}", value, rank_zero_only=False)
