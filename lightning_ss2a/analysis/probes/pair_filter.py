"""Measures whether the pair filter drops the mismatched pairs of a simulated data set (paper, supplement 2.2)."""

from dataclasses import replace

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from lightning_ss2a.analysis.probes.base import Probe
from lightning_ss2a.callbacks import PairFilter
from lightning_ss2a.callbacks.mean_teacher.elbow import ElbowOptions, find_elbow
from lightning_ss2a.callbacks.mean_teacher.pair_filter import teacher_similarity
from lightning_ss2a.callbacks.mean_teacher.teacher import ANNOTATED
from lightning_ss2a.callbacks.trainer_state import callbacks_of, data_of
from lightning_ss2a.data.simulation.truth import read_truth
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import ManifoldModule


class FilterQuality(Probe[ManifoldModule]):
    """Logs ``val/filter/*`` of the curated and translated pairs, once a teacher has judged them.

    Listed after ``EMATeacher`` and ``PairFilter``. Against the truth of which pairs are mismatched: ``precision``,
    ``recall`` and the part ``dropped`` by the filter, and its ``threshold``; ``auc``, how often a matched pair is more
    similar than a mismatched one by the teacher; ``cosine/matched`` and ``cosine/mismatched``, mean similarities. What
    nothing defines is not logged. ``with_floor_threshold/*`` is what the filter would do with ``floor_threshold``.

    Args:
        floor_threshold: cosine from which on pairs would be kept whatever the elbow, with the other options of the
            ``PairFilter`` that is listed, or the default ones; None: not measured.
    """

    stages = (ManifoldModule,)

    def __init__(self, floor_threshold: float | None = None) -> None:
        self.floor_threshold = floor_threshold
        self._numbers: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gets ready.

        Raises:
            InputError: the module is of another stage, or a PairFilter is listed after this.
        """
        super().setup(trainer, pl_module, stage)
        callbacks = callbacks_of(trainer)
        if any(isinstance(callback, PairFilter) for callback in callbacks[callbacks.index(self) :]):
            raise InputError("FilterQuality is listed before PairFilter; list it after, so that there is a filtering")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._numbers = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judges the pairs as stage 2 begins."""
        teacher = self.module(pl_module).teacher
        if teacher is None or self._numbers:
            return
        data = data_of(trainer)
        noisy = data.training_columns(["pair_origin"])["pair_origin"].numpy() != ANNOTATED
        mismatched = read_truth(data.datasets[0], data.splits("train")[0][0])["mismatched"][noisy]
        similarity = teacher_similarity(trainer, teacher, np.flatnonzero(noisy), len(noisy))
        numbers, options = similarity_numbers(similarity, mismatched), ElbowOptions()
        for callback in callbacks_of(trainer):
            if isinstance(callback, PairFilter) and callback.kept is not None:
                numbers |= precision_and_recall(~callback.kept.numpy()[noisy], mismatched)
                numbers |= {} if callback.threshold is None else {"threshold": callback.threshold}
                options = callback.elbow
        if self.floor_threshold is not None:
            elbow = find_elbow(similarity, replace(options, floor_threshold=self.floor_threshold))
            dropped = similarity < (-1.0 if elbow.threshold is None else elbow.threshold)
            found = precision_and_recall(dropped, mismatched)
            numbers |= {f"with_floor_threshold/{name}": value for name, value in found.items()}
        self._numbers = {f"filter/{name}": value for name, value in numbers.items()}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs."""
        self.log_numbers(trainer, pl_module, self._numbers)


def similarity_numbers(similarity: np.ndarray, mismatched: np.ndarray) -> dict[str, float]:
    """Computes mean similarities ``cosine/matched`` and ``cosine/mismatched``, and ``auc``; those that are defined.

    Args:
        similarity: cosine of each pair, [pairs].
        mismatched: whether it is mismatched, bool [pairs].
    """
    from sklearn.metrics import roc_auc_score

    parts = {"cosine/matched": similarity[~mismatched], "cosine/mismatched": similarity[mismatched]}
    numbers = {name: float(part.mean()) for name, part in parts.items() if len(part)}
    return numbers | ({"auc": float(roc_auc_score(~mismatched, similarity))} if len(numbers) > 1 else {})


def precision_and_recall(dropped: np.ndarray, mismatched: np.ndarray) -> dict[str, float]:
    """Computes both of dropping mismatched pairs, and the part dropped; what nothing defines is left out.

    Args:
        dropped: bool [pairs].
        mismatched: bool [pairs].
    """
    right, found = int((dropped & mismatched).sum()), {"dropped": float(dropped.mean())}
    if dropped.any():
        found["precision"] = right / int(dropped.sum())
    if mismatched.any():
        found["recall"] = right / int(mismatched.sum())
    return found
