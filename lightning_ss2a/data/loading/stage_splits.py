"""Selects the splits of a data set that a stage reads: by fold, or by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.loading.dataset import check_split
from lightning_ss2a.errors import InputError

Stage = Literal["train", "validation", "test", "predict"]


@dataclass(frozen=True)
class StageSplits:
    """The splits that each stage reads, as the options of :class:`ShardDataModule` name them.

    Args:
        fold: validate (and test) on this fold of the manifest, from 0, train on all others. None: splits by name.
        train_split: split to train on, without ``fold``.
        validation_split: split to validate on, without ``fold``.
        test_split: split to test on. None: the fold, or the split ``test``.
        predict_split: split to predict. None: all splits.
    """

    fold: int | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str | None = None
    predict_split: str | None = None

    def select(self, stage: Stage, datasets: Sequence[str], manifests: Sequence[Manifest]) -> list[list[str]]:
        """Selects the splits of each data set that a stage reads.

        All data sets are trained on; those without a split for an evaluation are left out of it, if others have one.

        Args:
            stage: ``train``, ``validation``, ``test`` or ``predict``.
            datasets: folders or URLs, for messages.
            manifests: the manifest of each data set.

        Returns:
            For each data set the names of its splits.

        Raises:
            InputError: no such split or fold.
        """
        named = [self._named(stage, *pair) for pair in zip(datasets, manifests, strict=True)]
        there = [[name for name in names if name in m.splits] for names, m in zip(named, manifests, strict=True)]
        if stage == "train" or not any(there):
            for names, dataset, manifest in zip(named, datasets, manifests, strict=True):
                for name in names:
                    check_split(name, dataset, list(manifest.splits), option=f"data.{stage}_split")
        return there

    def _named(self, stage: Stage, dataset: str, manifest: Manifest) -> list[str]:
        if stage == "predict":
            return list(manifest.splits) if self.predict_split is None else [self.predict_split]
        if stage == "test" and self.test_split is not None:
            return [self.test_split]
        if self.fold is None:
            return [{"train": self.train_split, "validation": self.validation_split, "test": "test"}[stage]]
        folds = list(manifest.folds or [])
        if not folds:
            raise InputError(f"{dataset}: data.fold is {self.fold}, but the data set has no folds; leave it out")
        if not 0 <= self.fold < len(folds):
            raise InputError(f"{dataset}: data.fold is {self.fold}, but the data set has {len(folds)} folds, from 0")
        held_out = folds[self.fold]
        return [fold for fold in folds if fold != held_out] if stage == "train" else [held_out]
