"""Filter of noisy pairs that the teacher finds least alike (paper, supplement 2.2, "Mean-Teacher Training")."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lightning_ss2a.callbacks.mean_teacher.elbow import Curve, ElbowOptions, find_elbow
from lightning_ss2a.callbacks.mean_teacher.report import (
    PairReport,
    boundary_warning,
    filter_figure,
    filter_table,
    summary_line,
)
from lightning_ss2a.callbacks.mean_teacher.row_switch import begins_epoch, train_on
from lightning_ss2a.callbacks.mean_teacher.teacher import ANNOTATED, EMATeacher
from lightning_ss2a.callbacks.outputs import add_figures, run_folder
from lightning_ss2a.callbacks.protocols import trains_manifold
from lightning_ss2a.callbacks.trainer_state import callbacks_of, data_of, is_test_drive
from lightning_ss2a.data.loading.tensors import tensor_column, text_column
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import write_whole
from lightning_ss2a.models import Manifold
from lightning_ss2a.options import OptionCheck

FOLDER = "pair_filter"
MOST_NAMED_CLASSES = 5


class PairFilter(Callback):
    """Drops curated and translated pairs whose CMSS embeddings the teacher finds unlike; annotated pairs all stay.

    At the start of stage 2 of :class:`~lightning_ss2a.callbacks.EMATeacher` (which has to be listed before), the
    teacher's cosine similarity between the visual and the audio CMSS embedding (their means) of every noisy pair is
    computed. The elbow of the sorted similarities, found by Kneedle (Satopaa et al. 2011), is the threshold: pairs
    below it leave the student's training set.

    The paper takes the elbow alone. That cuts a tail where no pair is wrong (about a tenth of simulated pairs), and
    next to nothing where more than two thirds are, however good the teacher. Here a mixture of two Gaussians judges it:
    ``least_separation``. Where it finds no two groups, everything is kept, and a line says so.

    An elbow that stands still cuts some good pairs; ``floor_threshold`` limits that, where it is known which similarity
    is good enough. A class whose only pairs would all be dropped keeps them, with a warning: no annotated pair of it
    has taught the teacher. Where all similarities are alike, or the pairs few, everything is kept.

    Written: ``pair_filter/epoch-0020.csv`` in the run's folder, every noisy pair with its similarity, least similar
    first; TensorBoard scalars ``pair_filter/*`` and a figure. What was kept goes with the checkpoint, so that a resumed
    run trains on the same pairs.

    Args:
        sensitivity: S of Kneedle: how far the curve must come back towards its chord after a bend, in steps of its
            quantiles, before the bend counts as a knee. 1 as in the paper of Kneedle. On a curve of all similarities
            S = 1 would stop at the first ripple, since a step is tiny there; hence the quantiles.
        curve: ``concave``: the elbow above the chord, where a tail of bad pairs ends and the plateau of good ones
            begins. ``convex``: the elbow below the chord, where a plateau ends and the best pairs rise: to keep only
            those, whatever ``least_separation``.
        quantiles: points that the sorted curve is reduced to.
        floor_threshold: pairs at least this similar (a cosine) are kept whatever the elbow. None: no such limit.
        min_kept_fraction: least part of the noisy pairs that is kept; the threshold is lowered for it if need be.
        min_pairs: with fewer noisy pairs than this, all are kept.
        every_n_epochs: filter anew, over all pairs, each time so many epochs of stage 2 have passed. None: once.
        least_separation: Ashman's D from which on the similarities are two groups, bad and good pairs: √2 times the
            distance of their means over the root of the sum of their variances, in a mixture of two Gaussians. The
            elbow then stands if it lies between the means; else the similarity at which both groups are equally likely
            takes its place, with a warning that names both. With a smaller D nothing is dropped. 2 as in Ashman, Bird
            and Zepf (1994). None: the elbow alone, as in the paper.

    Attributes:
        kept: which training rows are kept, bool [rows]; None before the first filtering.
        threshold: the last one, a cosine; None: there was none.

    Raises:
        InputError: a value out of range.
    """

    def __init__(
        self,
        sensitivity: float = ElbowOptions.sensitivity,
        curve: Curve = ElbowOptions.curve,
        quantiles: int = ElbowOptions.quantiles,
        floor_threshold: float | None = ElbowOptions.floor_threshold,
        min_kept_fraction: float = ElbowOptions.min_kept_fraction,
        min_pairs: int = ElbowOptions.min_pairs,
        every_n_epochs: int | None = None,
        least_separation: float | None = ElbowOptions.least_separation,
    ) -> None:
        self.elbow = ElbowOptions(
            sensitivity, curve, quantiles, floor_threshold, min_kept_fraction, min_pairs, least_separation
        )
        OptionCheck("PairFilter").at_least(1, every_n_epochs=every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self.kept: Tensor | None = None
        self._keys: str | None = None
        self.threshold: float | None = None
        self._first_epoch: int | None = None
        self._last_epoch: int | None = None
        self._said_nothing_to_filter = False

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Returns which training rows are kept, whose keys they are, the threshold, and the first and last epoch."""
        return {
            "kept": self.kept,
            "keys": self._keys,
            "threshold": self.threshold,
            "first_epoch": self._first_epoch,
            "last_epoch": self._last_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes that back."""
        self.kept, self._keys = state_dict["kept"], state_dict["keys"]
        self.threshold = state_dict["threshold"]
        self._first_epoch, self._last_epoch = state_dict["first_epoch"], state_dict["last_epoch"]

    # ---------------------------------------------------------------- Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begins anew; a checkpoint to resume from brings its state later.

        Raises:
            InputError: no EMATeacher is listed before this.
        """
        if stage != "fit":
            return
        self.kept = self._keys = self.threshold = self._first_epoch = self._last_epoch = None
        self._said_nothing_to_filter = False
        teachers = [i for i, callback in enumerate(callbacks_of(trainer)) if isinstance(callback, EMATeacher)]
        if not teachers:
            raise InputError("PairFilter needs a teacher: list the callback EMATeacher before it")
        if teachers[0] > callbacks_of(trainer).index(self):
            raise InputError("EMATeacher is listed after PairFilter; list it before, so that there is a teacher")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on with the rows that a checkpoint kept.

        Raises:
            InputError: the checkpoint's rows are not those of the data.
        """
        if self.kept is None:
            return
        keys = text_column(data_of(trainer).training_columns(["key"]), "key")
        if self._keys != digest(keys):
            raise InputError(
                f"the checkpoint's pair filter is over {len(self.kept):,} other training rows than the {len(keys):,} "
                "of the data, or over the same in another order: resume with the data sets and splits of that run, or "
                "begin a new run, with the checkpoint as EMATeacher.teacher_checkpoint"
            )
        _train_on_kept(trainer, self.kept)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Filters where training begins with an epoch that it was resumed in."""
        if begins_epoch(trainer):
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Filters, when it is due."""
        teacher = trains_manifold(pl_module, self).teacher
        if teacher is not None and self._is_due(trainer.current_epoch):
            self._filter(trainer, teacher)

    def _is_due(self, epoch: int) -> bool:
        if self._first_epoch is None:
            return True
        again = self.every_n_epochs is not None and (epoch - self._first_epoch) % self.every_n_epochs == 0
        return again and epoch != self._last_epoch  # a run resumed in the epoch that the checkpoint has filtered for

    # ---------------------------------------------------------------- filtering

    def _filter(self, trainer: Trainer, teacher: Manifold) -> None:
        columns = data_of(trainer).training_columns(["key", "pair_origin", "class_index"])
        origin = tensor_column(columns, "pair_origin").numpy()
        rows = np.flatnonzero(origin != ANNOTATED)
        epoch = trainer.current_epoch
        self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
        self._last_epoch = epoch
        kept, self.threshold = torch.ones(len(origin), dtype=torch.bool), None
        self._keys = digest(text_column(columns, "key"))
        if len(rows):
            similarity = teacher_similarity(trainer, teacher, rows, len(origin))
            report = decide(columns, rows, similarity, data_of(trainer).classes, self.elbow)
            kept[torch.from_numpy(rows)] = torch.from_numpy(report.kept)
            self.threshold = report.elbow.threshold
            self._tell(trainer, report)
        elif not self._said_nothing_to_filter:
            self._said_nothing_to_filter = True
            rank_zero_info("PairFilter: all training pairs are annotated, so there is nothing to filter")
        self.kept = kept
        _train_on_kept(trainer, kept)

    # ---------------------------------------------------------------- what people see

    def _tell(self, trainer: Trainer, report: PairReport) -> None:
        folder = run_folder(trainer)
        file = None if is_test_drive(trainer) else folder / FOLDER / f"epoch-{trainer.current_epoch:04d}.csv"
        if file is not None and trainer.is_global_zero:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, filter_table(report))
        if report.elbow.threshold is None:
            rank_zero_warn(f"PairFilter keeps all pairs: {report.elbow.reason}")
        if report.elbow.reason == "boundary":
            rank_zero_warn(boundary_warning(report.elbow))
        if len(report.rescued):
            rank_zero_warn(rescue_warning(report))
        rank_zero_info(summary_line(report) + (f"; see {file}" if file is not None else ""))
        for logger in trainer.loggers:
            logger.log_metrics(report.scalars(), step=trainer.global_step)
        add_figures(trainer, lambda: {"pair_filter": filter_figure(report)})


def _train_on_kept(trainer: Trainer, kept: Tensor) -> None:
    train_on(trainer, None if bool(kept.all()) else kept.nonzero()[:, 0].numpy())


@torch.no_grad()
def teacher_similarity(trainer: Trainer, teacher: Manifold, rows: np.ndarray, total: int) -> np.ndarray:
    """Computes the cosine between the teacher's visual and audio CMSS means of rows, the same on every rank.

    Args:
        trainer: whose data module deals the rows to the ranks.
        teacher: on the device of the run.
        rows: row numbers, int64, increasing.
        total: number of all training rows.
    """
    weights = next(teacher.parameters())
    device, dtype = weights.device, weights.dtype  # weights may be bfloat16 throughout
    # Each row is in one rank's batches, so that the sum over ranks is a gathering, whatever their numbers of rows.
    similarity = torch.zeros(total, device=device)
    for batch in data_of(trainer).training_rows_subset_loader(rows):  # no hook of a callback runs under autocast
        visual, audio = (batch[name].to(device, dtype, non_blocking=True) for name in ("visual", "audio"))
        means = teacher.project_visual(visual).mean.float(), teacher.project_audio(audio).mean.float()
        similarity[batch["index"].to(device, non_blocking=True)] = cosine_similarity(*means)
    return trainer.strategy.reduce(similarity, reduce_op="sum").cpu().numpy()[rows]


def digest(keys: np.ndarray) -> str:
    """Computes what tells one list of row keys from another."""
    return hashlib.sha256(b"\0".join(keys.tolist())).hexdigest()


def decide(
    columns: Mapping[str, Any],
    rows: np.ndarray,
    similarity: np.ndarray,
    classes: list[str],
    options: ElbowOptions,
) -> PairReport:
    """Decides which noisy pairs are kept.

    Args:
        columns: ``key``, ``pair_origin`` and ``class_index`` of all training rows.
        rows: numbers of the noisy rows, int64, increasing.
        similarity: cosine of each of those.
        classes: names of the classes.
        options: of the elbow.

    Raises:
        InputError: a similarity is NaN or infinite; names the row's key.
    """
    keys, origin, class_index = (np.asarray(columns[name]) for name in ("key", "pair_origin", "class_index"))
    broken = np.flatnonzero(~np.isfinite(similarity))
    if len(broken):
        raise InputError(
            f"PairFilter: the teacher's similarity of row {keys[rows[broken[0]]].decode()!r} is "
            f"{similarity[broken[0]]} ({len(broken):,} such rows): the teacher has diverged; lower "
            "model.optimization.learning_rate, or set model.optimization.gradient_clip_norm"
        )
    elbow = find_elbow(similarity, options)
    kept = np.ones(len(rows), bool) if elbow.threshold is None else similarity >= elbow.threshold
    rescued = classes_without_pairs(class_index, rows, kept)
    return PairReport(
        keys=keys[rows],
        rows=rows,
        pair_origin=origin[rows],
        class_index=class_index[rows],
        classes=classes,
        similarity=similarity,
        kept=kept | np.isin(class_index[rows], rescued),
        elbow=elbow,
        rescued=rescued,
    )


def classes_without_pairs(class_index: np.ndarray, rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Finds classes that have training rows, and would have none.

    Args:
        class_index: class of every training row.
        rows: numbers of the noisy rows.
        kept: which of those are kept.
    """
    remaining = np.delete(class_index, rows[~kept])
    return np.setdiff1d(class_index, remaining)


def rescue_warning(report: PairReport) -> str:
    """Names the first classes of those that would have lost all their pairs."""
    named = ", ".join(report.classes[c] for c in report.rescued[:MOST_NAMED_CLASSES])
    more = len(report.rescued) - MOST_NAMED_CLASSES
    return (
        f"PairFilter: every training pair of {len(report.rescued):,} classes is below the threshold and none is "
        f"annotated, so nothing says that they are wrong; their pairs are kept: {named}"
        + (f" and {more:,} more" if more > 0 else "")
    )
