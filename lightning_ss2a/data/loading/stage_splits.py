"""Selects the splits of a data set that a stage reads: by fold, or by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.loading.dataset import check_split
from lightning_ss2a.errors import InputError

Stage = Literal["train", "reference", "validation", "test", "predict"]
"""``reference``: the rows that are trained on, without those of ``train_with``. Baselines are fitted on them."""


def beside_fold(fold: str, name: str) -> str:
    """Names the split of rows that belong to a fold, but that no figure is measured on."""
    return f"{fold}_{name}"


@dataclass(frozen=True)
class StageSplits:
    """The splits that each stage reads, as the options of :class:`ShardDataModule` name them.

    Args:
        fold: validate (and test) on this fold of the manifest, from 0, train on all others. None: splits by name.
        train_split: split to train on, without ``fold``.
        validation_split: split to validate on, without ``fold``.
        test_split: split to test on. None: the fold, or the split ``test``.
        predict_split: split to predict. None: all splits.
        train_with: with ``fold``, train on the splits ``FOLD_NAME`` of this name, too, of the folds trained on.
    """

    fold: int | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str | None = None
    predict_split: str | None = None
    train_with: str | None = None

    def select(self, stage: Stage, datasets: Sequence[str], manifests: Sequence[Manifest]) -> list[list[str]]:
        """Selects the splits of each data set that a stage reads.

        All data sets are trained on; those without a split for an evaluation are left out of it, if others have one.

        Args:
            stage: ``train``, ``reference``, ``validation``, ``test`` or ``predict``.
            datasets: folders or URLs, for messages.
            manifests: the manifest of each data set.

        Returns:
            For each data set the names of its splits.

        Raises:
            InputError: no such split or fold, or ``train_with`` without a fold.
        """
        if self.train_with is not None and self.fold is None:
            raise InputError(f"data.train_with is {self.train_with!r}, which needs data.fold; or name a train_split")
        named = [self._named(stage, *pair) for pair in zip(datasets, manifests, strict=True)]
        there = [[name for name in names if name in m.splits] for names, m in zip(named, manifests, strict=True)]
        if stage == "train" or not any(there):
            beside = stage == "train" and self.fold is not None
            option = f"data.train_with={self.train_with}: the split" if beside else f"data.{stage}_split"
            for names, dataset, manifest in zip(named, datasets, manifests, strict=True):
                for name in names:
                    check_split(name, dataset, list(manifest.splits), option=option)
        return there

    def _named(self, stage: Stage, dataset: str, manifest: Manifest) -> list[str]:
        if stage == "predict":
            return list(manifest.splits) if self.predict_split is None else [self.predict_split]
        if stage == "test" and self.test_split is not None:
            return [self.test_split]
        if self.fold is None:
            named = {"validation": self.validation_split, "test": "test"}
            return [named.get(stage, self.train_split)]
        folds = list(manifest.folds or [])
        if not folds:
            raise InputError(f"{dataset}: data.fold is {self.fold}, but the data set has no folds; leave it out")
        if not 0 <= self.fold < len(folds):
            raise InputError(f"{dataset}: data.fold is {self.fold}, but the data set has {len(folds)} folds, from 0")
        held_out = folds[self.fold]
        if stage not in ("train", "reference"):
            return [held_out]
        trained = [fold for fold in folds if fold != held_out]
        added = self.train_with if stage == "train" else None
        return trained + ([beside_fold(fold, added) for fold in trained] if added is not None else [])
