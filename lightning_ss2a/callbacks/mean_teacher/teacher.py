"""Mean Teacher (Tarvainen and Valpola, 2017; paper, supplement 2.2): a teacher that follows its student."""

import math
from typing import Any, get_args

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_ss2a.callbacks.mean_teacher.row_switch import begins_epoch, train_on
from lightning_ss2a.callbacks.protocols import TrainsManifold, trains_manifold
from lightning_ss2a.callbacks.trainer_state import data_of, is_test_drive
from lightning_ss2a.checkpoints import architecture_of, other_architecture, read_checkpoint
from lightning_ss2a.data import PAIR_ORIGINS
from lightning_ss2a.data.loading.tensors import tensor_column
from lightning_ss2a.errors import InputError
from lightning_ss2a.models.ema import DecaySchedule, ema_decay, relative_distance, update_ema
from lightning_ss2a.options import OptionCheck

ANNOTATED = PAIR_ORIGINS.index("annotated")
OPTION = "EMATeacher.teacher_checkpoint"


class EMATeacher(Callback):
    """Trains in two stages: overfit a teacher on annotated pairs, then let it supervise a student that sees all pairs.

    Stage 1 lasts ``teacher_epochs`` and trains on annotated pairs only (on all, with a warning, where none is
    annotated). Then a copy of the model becomes the teacher, and the model goes on as the student, in stage 2, on all
    pairs (or on those that a :class:`~lightning_ss2a.callbacks.PairFilter`, listed after this, keeps). After every
    optimiser step the teacher becomes decay * teacher + (1 - decay) * student. The student's loss gains
    ``consistency_weight`` * (1 - cosine) between its own CMSS embeddings and the teacher's of the same pairs.

    Lightning's ``WeightAveraging`` and ``EMAWeightAveraging`` average weights for evaluation. They do not serve here:
    nothing of theirs can run the averaged model inside the loss; they copy the whole LightningModule, metrics and
    all; they swap weights with the live model around validation, so that a checkpoint holds the average under the
    model's names and the model under others; they start at a step, not where a stage of the data begins. Here the
    teacher is a submodule of the module: the strategy moves it, checkpoints hold it under ``teacher.*``, every rank
    computes the same one from the same weights, and nothing is swapped. Strategies that shard weights are not supported
    (the module refuses them).

    Args:
        teacher_epochs: epochs of stage 1; 0: the teacher starts as a copy of the untrained model.
        decay: largest decay of the teacher, in [0, 1].
        decay_schedule: ``warmup``: min(decay, (1 + t) / (10 + t)) at update t, as Tarvainen and Valpola do;
            ``constant``.
        consistency_weight: weight of the consistency loss; 0: the teacher is averaged, but not run while training.
        consistency_rampup_epochs: epochs of stage 2 in which the weight rises to its value, by exp(-5 (1 - x)^2).
        teacher_checkpoint: a checkpoint of a ``ManifoldModule`` of the same architecture, in place of stage 1: its
            teacher if it has one, else its model, becomes the teacher, and the student starts from it too.
        validate_teacher: validate, test and predict with the teacher where there is one.
        fresh_student: begin stage 2 with a student of new weights, drawn from the run's seed, and optimisers without
            memory; the learning rate's schedule goes on. False: the student goes on from the teacher's weights. The
            paper speaks of "another student". With true ``decay_schedule`` has to be ``constant``: ``warmup`` would
            make the teacher the untrained student at once. Any decay below 1 mixes two networks that have little in
            common, step by step; 1 freezes the teacher.

    Raises:
        InputError: a value out of range, or ``fresh_student`` with a warm-up or without a trained teacher.
    """

    def __init__(
        self,
        teacher_epochs: int = 20,
        decay: float = 0.999,
        decay_schedule: DecaySchedule = "warmup",
        consistency_weight: float = 1.0,
        consistency_rampup_epochs: float = 5.0,
        teacher_checkpoint: str | None = None,
        validate_teacher: bool = False,
        fresh_student: bool = False,
    ) -> None:
        check = OptionCheck("EMATeacher")
        check.at_least(0, teacher_epochs=teacher_epochs, consistency_weight=consistency_weight)
        check.at_least(0, consistency_rampup_epochs=consistency_rampup_epochs)
        check.within(0, 1, decay=decay)
        check.one_of(get_args(DecaySchedule), decay_schedule=decay_schedule)
        if fresh_student and decay_schedule != "constant":
            raise InputError(
                f"EMATeacher.decay_schedule={decay_schedule} would make the teacher the untrained student that "
                "EMATeacher.fresh_student=true begins with: set decay_schedule to constant"
            )
        if fresh_student and teacher_epochs == 0 and teacher_checkpoint is None:
            raise InputError(
                "EMATeacher.fresh_student=true needs a trained teacher: set EMATeacher.teacher_epochs or "
                "EMATeacher.teacher_checkpoint"
            )
        self.teacher_epochs = teacher_epochs
        self.decay = decay
        self.decay_schedule = decay_schedule
        self.consistency_weight = consistency_weight
        self.consistency_rampup_epochs = consistency_rampup_epochs
        self.teacher_checkpoint = teacher_checkpoint
        self.validate_teacher = validate_teacher
        self.fresh_student = fresh_student
        self._updates = 0
        self._first_epoch = 0
        self._latest_decay = 0.0
        self._resumed_in: int | None = None
        self._hook: Any = None

    def state_dict(self) -> dict[str, Any]:
        """Returns how far stage 2 is; the teacher itself is in the module's own state."""
        return {"updates": self._updates, "first_epoch": self._first_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes that back."""
        self._updates, self._first_epoch = state_dict["updates"], state_dict["first_epoch"]

    # ---------------------------------------------------------------- the two stages

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begins anew; a checkpoint to resume from brings its teacher and its counters later.

        Raises:
            InputError: the module cannot have a teacher.
        """
        trains_manifold(pl_module, self).validate_teacher = self.validate_teacher
        if stage == "fit":
            self._updates, self._first_epoch, self._resumed_in = 0, 0, None
            data_of(trainer).select_training_rows(None)  # those of another fit, if any

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes where a run is resumed."""
        self._resumed_in = checkpoint["epoch"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins stage 1, or takes the given teacher; in a run resumed in stage 2 there is a teacher already.

        Raises:
            InputError: the given teacher cannot be used, or the annotated pairs do not fill one batch.
        """
        if trains_manifold(pl_module, self).teacher is not None:
            return
        if self.teacher_checkpoint is not None:
            if self._resumed_in is not None:
                raise InputError(
                    f"{OPTION} {self.teacher_checkpoint} would overwrite what --ckpt_path resumes, which has no "
                    "teacher; give one of the two"
                )
            load_teacher(trains_manifold(pl_module, self), self.teacher_checkpoint)
            self._begin_student(pl_module)
            rank_zero_info(f"EMATeacher: the teacher is {self.teacher_checkpoint}; stage 2 from the first epoch")
        elif (self._resumed_in or 0) < self.teacher_epochs:
            self._begin_stage_one(trainer)

    def _begin_stage_one(self, trainer: Trainer) -> None:
        try:
            train_on(trainer, self._annotated_rows(trainer))
        except InputError as error:
            raise InputError(f"EMATeacher: stage 1 trains on annotated rows only: {error}") from error
        if 0 < (trainer.max_epochs or 0) <= self.teacher_epochs and not is_test_drive(trainer):
            rank_zero_warn(
                f"EMATeacher.teacher_epochs={self.teacher_epochs} leaves no epoch for the student: "
                f"trainer.max_epochs is {trainer.max_epochs}"
            )

    def _annotated_rows(self, trainer: Trainer) -> np.ndarray | None:
        origin = tensor_column(data_of(trainer).training_columns(["pair_origin"]), "pair_origin").numpy()
        rows = np.flatnonzero(origin == ANNOTATED)
        if not len(rows):
            rank_zero_warn("EMATeacher: no training pair is annotated, so stage 1 trains the teacher on all pairs")
            return None
        if len(rows) == len(origin):
            rank_zero_info("EMATeacher: all training pairs are annotated, so both stages see the same pairs")
            return None
        rank_zero_info(
            f"EMATeacher: stage 1, {self.teacher_epochs} epochs on the {len(rows):,} annotated of {len(origin):,} rows"
        )
        return rows

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follows the student from now on: after the last of the optimisers that a step moves."""
        module = trains_manifold(pl_module, self)

        def follow(*_: Any) -> None:
            self._follow(module)

        self._hook = trainer.optimizers[-1].register_step_post_hook(follow)
        if begins_epoch(trainer):
            self.on_train_epoch_start(trainer, pl_module)
        _log_stage(trainer, module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins stage 2, when it is time."""
        module = trains_manifold(pl_module, self)
        if module.teacher is not None or trainer.current_epoch < self.teacher_epochs:
            return
        module.start_teacher()
        self._begin_student(pl_module)
        self._updates, self._first_epoch = 0, trainer.current_epoch
        train_on(trainer, None)
        rank_zero_info(f"EMATeacher: stage 2 from epoch {trainer.current_epoch}, on all rows")
        _log_stage(trainer, module)

    def _begin_student(self, pl_module: LightningModule) -> None:
        if self.fresh_student:
            trains_manifold(pl_module, self).restart_student()
            rank_zero_info("EMATeacher: the student begins with new weights")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the weight of the consistency loss."""
        module = trains_manifold(pl_module, self)
        if module.teacher is not None:
            epochs = trainer.current_epoch - self._first_epoch + batch_idx / trainer.num_training_batches
            module.consistency_weight = self.consistency_weight * rampup(epochs, self.consistency_rampup_epochs)

    def _follow(self, module: TrainsManifold) -> None:
        if module.teacher is not None:
            self._latest_decay = ema_decay(self._updates, self.decay, self.decay_schedule)
            update_ema(module.teacher, module.manifold, self._latest_decay)
            self._updates += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the stage, and in stage 2 how far teacher and student are apart."""
        module = trains_manifold(pl_module, self)
        if not module.is_logged:
            return
        pl_module.log("teacher/stage", _stage(module))
        if module.teacher is None:
            return
        pl_module.log("teacher/decay", self._latest_decay)
        pl_module.log("teacher/consistency_weight", module.consistency_weight)
        pl_module.log("teacher/distance_to_student", relative_distance(module.teacher, module.manifold))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warns if training has ended before there was a student."""
        if trains_manifold(pl_module, self).teacher is None and not is_test_drive(trainer):
            rank_zero_warn("EMATeacher: training has ended in stage 1: there is no teacher, and the filter never ran")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warns if the teacher is asked for and there is none."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        if self.validate_teacher and trains_manifold(pl_module, self).teacher is None and not fitting:
            rank_zero_warn("EMATeacher.validate_teacher: the checkpoint has no teacher, so its model is used")

    on_test_start = on_predict_start = on_validation_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Cleans up as at a good end."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops following; leaves to later fits all rows, and no weight of a teacher."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if stage == "fit":
            trains_manifold(pl_module, self).consistency_weight = 0.0
            data_of(trainer).select_training_rows(None)


def _log_stage(trainer: Trainer, module: TrainsManifold) -> None:
    """Logs where a stage begins, since it may be shorter than the interval of logging."""
    for logger in trainer.loggers:
        logger.log_metrics({"teacher/stage": _stage(module)}, step=trainer.global_step)


def _stage(module: TrainsManifold) -> float:
    return 1.0 if module.teacher is None else 2.0


def rampup(epochs: float, rampup_epochs: float) -> float:
    """Computes the ramp-up of Tarvainen and Valpola, exp(-5 (1 - x)^2) with x = epochs / rampup_epochs, at most 1."""
    done = min(1.0, epochs / rampup_epochs) if rampup_epochs else 1.0
    return math.exp(-5.0 * (1.0 - done) ** 2)


def load_teacher(module: TrainsManifold, path: str) -> None:
    """Makes the manifold of a checkpoint the module's teacher, and starts the student from it.

    Args:
        module: a ``ManifoldModule``.
        path: checkpoint of one; its teacher if it has one, else its model.

    Raises:
        InputError: the file cannot be read, or holds a model of another architecture.
    """
    checkpoint = read_checkpoint(path, OPTION)
    for name, ours, theirs in other_architecture(module.architecture, architecture_of(checkpoint)):
        raise InputError(f"{OPTION} {path} has model.{name} {theirs}, this model has {ours}")
    weights = checkpoint["state_dict"]
    prefix = "teacher." if any(name.startswith("teacher.") for name in weights) else "manifold."
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    try:
        module.manifold.load_state_dict(found)
    except RuntimeError as error:
        raise InputError(f"{OPTION} {path}: not the checkpoint of a manifold like this one") from error
    module.start_teacher()
