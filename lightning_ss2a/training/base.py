"""What all stages share: options and checkpoints, validation with its baselines, randomness by step, one optimiser."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from typing_extensions import Self

from lightning_ss2a.callbacks.outputs import name_event_files_in_errors
from lightning_ss2a.callbacks.protocols import Prediction
from lightning_ss2a.callbacks.trainer_state import data_of, ends_logging_interval, is_last_batch
from lightning_ss2a.checkpoints import FORMAT, check_format, checkpoint_source, encoders_of, read_checkpoint
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.options import OptionCheck, plain
from lightning_ss2a.seeding import mix_seed, run_seed, seed_device
from lightning_ss2a.training.checkpoint_io import use_whole_checkpoints
from lightning_ss2a.training.checks import check_kind, check_label_head, check_trainer, check_width
from lightning_ss2a.training.optimization import (
    OptimizationOptions,
    add_gradients,
    average_gradients,
    average_over_ranks,
    build_adamw,
    build_schedule,
    leave_gradients_to_us,
    optimized_tensors,
    part_parameters,
    run_progress,
)
from lightning_ss2a.training.resume import carry_over_best, finish_epoch, restore_position
from lightning_ss2a.training.step import Step
from lightning_ss2a.training.step.differentiate import Differentiate, differentiate
from lightning_ss2a.training.step.flat_adamw import FlatAdamW
from lightning_ss2a.training.step.flat_losses import FlatLosses
from lightning_ss2a.training.validation.baselines import TrainingStatistics, training_statistics
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.measuring import MeasuringOptions
from lightning_ss2a.training.validation.targets import Targets

INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
"""What makes a module from a checkpoint's options; it is in every checkpoint."""


class MeasuredModule(LightningModule):
    """A module whose options travel in its checkpoints, with validation and test beside baselines.

    The baselines are fitted on the training split and travel in the checkpoint, too. A stage says which data it takes
    (:attr:`DATA`), what its weights depend on (:attr:`architecture_options`) and what its numbers are
    (:meth:`build_validation`), and measures a batch (:meth:`measure`).

    Args:
        arguments: ``locals()`` of the stage's ``__init__``: its options, kept as plain values in ``hparams``.
        audio_width: width of the audio embeddings.
        visual_width: width of the visual embeddings; None: it reads none.
        optimization: options of its optimisers.
        step: how a step is computed, see :data:`lightning_ss2a.training.step.Step`.
        measuring: options of the metrics; None: it has neither SSMS nor a CLIP score.
    """

    DATA: ClassVar[dict[str, str | None]]
    """Kinds of data sets that the module takes, and which field of each holds what is seen; None: it reads none."""

    def __init__(
        self,
        arguments: Mapping[str, Any],
        audio_width: int,
        visual_width: int | None,
        optimization: OptimizationOptions,
        step: Step,
        measuring: MeasuringOptions | None = None,
    ) -> None:
        super().__init__()
        # With this instantiator Lightning parses the plain values of a checkpoint, and groups are dataclasses again.
        made_by = {
            "_class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "_instantiator": INSTANTIATOR,
        }
        options = {name: plain(value) for name, value in arguments.items() if name not in ("self", "__class__")}
        self.save_hyperparameters(options | made_by)
        self.audio_width, self.visual_width, self.measuring = audio_width, visual_width, measuring
        OptionCheck("model").one_of(get_args(Step), step=step)
        self.optimization, self.step = optimization, step
        self._statistics: TrainingStatistics | None = None
        self._loaded_encoders: dict[str, str] = {}
        self._validation: EpochMetrics[Any] | None = None
        self.label_head: LabelHead | None = None  # on the device from the start of a run on

    @property
    def data(self) -> ShardDataModule:
        """The trainer's data."""
        return data_of(self.trainer)

    @property
    def statistics(self) -> TrainingStatistics:
        """The closed-form maps of the training split, from the start of a run on."""
        if self._statistics is None:
            raise RuntimeError("the training split has not been read yet")
        return self._statistics

    @statistics.setter
    def statistics(self, statistics: TrainingStatistics) -> None:
        self._statistics = statistics

    @property
    def validation(self) -> EpochMetrics[Any]:
        """The metrics of the run, from its set-up on."""
        if self._validation is None:
            raise RuntimeError("there are no metrics before a run")
        return self._validation

    @property
    def architecture(self) -> dict[str, Any]:
        """Options that the weights depend on, nested plain values by name."""
        widths = {"visual_width": self.visual_width, "audio_width": self.audio_width}
        return plain(widths | self.architecture_options)

    @property
    def architecture_options(self) -> dict[str, Any]:
        """Options that the weights depend on beside the widths, by name."""
        raise NotImplementedError

    def check_data(self, data: ShardDataModule) -> None:
        """Refuse data that the model was not made for.

        Raises:
            InputError: they are of another kind, their widths are not the model's, or the label head is too small.
        """
        check_kind(data, list(self.DATA), type(self).__name__)
        seen = self.DATA[data.manifest.kind]
        if seen is not None:
            check_width(data, seen, visual_width=self.visual_width)
        check_width(data, "audio", audio_width=self.audio_width)
        if self.measuring is not None:
            check_label_head(data, self.measuring.top_n)

    def build_validation(self, data: ShardDataModule) -> EpochMetrics[Any]:
        """New metrics for a run."""
        raise NotImplementedError

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measure a batch, by :meth:`add_predictions`; returns what figures are drawn from."""
        raise NotImplementedError

    def add_predictions(
        self,
        targets: Targets,
        predictions: Mapping[str, Any],
        baselines: Callable[[Targets, TrainingStatistics], Mapping[str, Any]],
    ) -> None:
        """Add a batch to the metrics; see :meth:`EpochMetrics.update`."""
        self.validation.update(targets, predictions, baselines, self.statistics, self.label_head)

    @property
    def ssms_by_group(self) -> dict[str, Tensor]:
        """SSMS by group of validation rows in the last epoch; see :class:`EpochMetrics`."""
        return {} if self._validation is None else self._validation.ssms_by_group

    # ---------------------------------------------------------------- set-up

    def configure_callbacks(self) -> list[Callback]:
        """No callbacks: the first hook that sees the trainer.

        It refuses what cannot work before Lightning does, and sees that what the run writes is whole or an error.

        Raises:
            InputError: a switch of the trainer that has another name here, or that is not supported.
        """
        check_trainer(self.trainer, not self.automatic_optimization, self.step)
        use_whole_checkpoints(self.trainer)
        if any(isinstance(logger, TensorBoardLogger) for logger in self.trainer.loggers):
            name_event_files_in_errors()
        return []

    def setup(self, stage: str) -> None:
        """Check the model against the data and make the metrics, new ones each run: baselines belong to one split.

        Raises:
            InputError: the data do not go with the model.
        """
        if stage == "fit":
            self._statistics = None  # that of another run, if any; a checkpoint to resume from brings its own later
        self.check_data(self.data)
        if stage == "predict":
            return
        self.label_head = self.data.label_head
        self._validation = self.build_validation(self.data)

    def on_fit_start(self) -> None:
        """Get ready to measure."""
        self._prepare_measuring()

    def teardown(self, stage: str) -> None:
        """Leave weights that can be saved and sent one by one, after a fit too."""
        if stage == "fit":
            part_parameters(self.trainer.optimizers)

    def on_train_start(self) -> None:
        """After the last batch of an epoch, go on with the first of the next."""
        finish_epoch(self.trainer)

    def on_validation_start(self) -> None:
        """Get ready to measure, unless fitting has."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._prepare_measuring()

    def on_test_start(self) -> None:
        """Get ready to measure."""
        self._prepare_measuring()

    def _prepare_measuring(self) -> None:
        """Fit the baselines on the training split, unless a checkpoint brought them; bring all to the device once.

        Setup would be too early: Lightning restores checkpoints after it.
        """
        top_n = None if self.measuring is None else self.measuring.top_n
        statistics = training_statistics(self.data, top_n) if self._statistics is None else self._statistics
        if self.measuring is not None and self.measuring.translator_checkpoint is not None:
            statistics = statistics.with_translator(self.measuring.translator_checkpoint)
        self.statistics = statistics.to(self.device)
        if self.label_head is not None:
            self.label_head = self.label_head.to(self.device)

    # ---------------------------------------------------------------- checkpoints

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path | IO[Any], *args: Any, **kwargs: Any) -> Self:
        """See Lightning's method of this name; options may be given anew, a group only as a whole.

        Raises:
            InputError: the file is no checkpoint, or has another format.
        """
        if isinstance(checkpoint_path, str | Path):
            source = checkpoint_source(str(checkpoint_path), "checkpoint")
            read_checkpoint(str(checkpoint_path), "checkpoint", source)
            if isinstance(source, BytesIO):
                source.seek(0)
            return super().load_from_checkpoint(source, *args, **plain(kwargs))
        return super().load_from_checkpoint(checkpoint_path, *args, **plain(kwargs))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights the baselines' closed-form maps, so that validation elsewhere needs no training data.

        And the encoders of the data, which whoever feeds the model compares with his own.
        """
        checkpoint["lightning_ss2a"] = {"format": FORMAT, "architecture": self.architecture} | self._encoders()
        if self._statistics is not None:
            checkpoint["training_statistics"] = {n: x.cpu() for n, x in self._statistics.state_dict().items()}

    def _encoders(self) -> dict[str, dict[str, str]]:
        """Names what made the embeddings that the weights were trained on: no others mean anything to them."""
        data = None if self._trainer is None else self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ShardDataModule):
            fields = sorted(data.manifest.fields.items())
            return {"encoders": {name: field.encoder for name, field in fields}}
        return {"encoders": self._loaded_encoders} if self._loaded_encoders else {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the closed-form maps back; a fit that goes on also finds its place in the epoch, and its best so far.

        Raises:
            InputError: the checkpoint has another format.
        """
        check_format(checkpoint, "checkpoint" if self._trainer is None else f"checkpoint {self.trainer.ckpt_path}")
        self._loaded_encoders = encoders_of(checkpoint)
        if "training_statistics" in checkpoint:
            self.statistics = TrainingStatistics(**checkpoint["training_statistics"])
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            carry_over_best(self.trainer, checkpoint)
            restore_position(checkpoint, self.trainer.accumulate_grad_batches if self.automatic_optimization else None)

    # ---------------------------------------------------------------- training

    def seed_step(self, batch_idx: int) -> None:
        """Make dropout and sampling a function of (seed, epoch, batch, rank), so that a resumed run repeats them."""
        seed_device(self.device, mix_seed(run_seed(), self.current_epoch, batch_idx, self.global_rank))

    def is_logged_at(self, count: int) -> bool:
        """Whether loggers write at the batch or step of this number, from 1."""
        return ends_logging_interval(self.trainer, count)

    # ---------------------------------------------------------------- evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measure a batch; returns what figures are drawn from."""
        return self.measure(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The same on the test split."""
        return self.measure(batch)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/*`` with its baselines beside it."""
        self._log_measured("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/*`` with its baselines beside it."""
        self._log_measured("test")

    def _log_measured(self, prefix: str) -> None:
        values = self.validation.compute()
        self.validation.reset(baselines=self.trainer.sanity_checking)  # which sees a part of the rows only
        # Every rank holds the same numbers already: the metrics gathered them.
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()}, sync_dist=False)


class StageModule(MeasuredModule):
    """One network, one AdamW, optimised by Lightning: all switches of the trainer work as they are documented there.

    A stage defines :attr:`network`, :meth:`prepare`, :meth:`terms`, and what :class:`MeasuredModule` asks for.

    Resuming is exact from every checkpoint. Lightning forgets the gradients of batches that wait for their step
    (``accumulate_grad_batches``); a resumed run trains on these batches again.
    """

    PREDICTS: ClassVar[Literal["audio", "visual"]] = "audio"
    """Whose embeddings the stage predicts."""
    prediction: Prediction | None = None
    """How :meth:`predict_step` predicts; None: by the first of :attr:`samplings`."""

    _differentiate: Differentiate | None = None
    """Computes terms and gradients of a batch, in a run that is not eager."""
    _gradients: list[Tensor]
    """Of the last batch, by what is optimised."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        raise NotImplementedError

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """What the losses read of a batch, by name; no gradient flows to it."""
        raise NotImplementedError

    def terms(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """``loss``, which is minimised, and the terms that it is made of, scalars by name.

        It reads nothing that changes from step to step but its inputs and the network, so that it can be compiled.
        """
        raise NotImplementedError

    @property
    def samplings(self) -> Sequence[str]:
        """Ways to predict, the usual one first: ``mean``, ``draw``, ``cycle_mix``."""
        return ("mean",)

    def predict_embeddings(self, batch: Batch, prediction: Prediction) -> Tensor:
        """Embeddings of an evaluation batch, [rows, width]: unit vectors of audio; draws are seeded by each row's key.

        Args:
            batch: at least one row.
            prediction: its ``sampling`` is one of :attr:`samplings`.
        """
        raise NotImplementedError

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """``predicted``, the embeddings of a batch, float32 [rows, width], and ``index``, the numbers of its rows."""
        index = batch["index"]
        prediction = self.prediction or Prediction(self.samplings[0])
        if len(index):
            return {"index": index, "predicted": self.predict_embeddings(batch, prediction).float()}
        width = self.audio_width if self.PREDICTS == "audio" else self.visual_width
        return {"index": index, "predicted": torch.empty(0, width or 0)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The same of a batch."""
        return self.terms(self.prepare(batch))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with its schedule, stepped once an optimiser step."""
        optimizer = build_adamw(self.network.parameters(), self.optimization, flat=self.step != "eager")
        schedule = build_schedule(optimizer, self.optimization, self._progress)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def has_pending_batches(self) -> bool:
        """Whether batches wait for the step that they belong to, which a checkpoint taken now would lose."""
        return self.trainer.fit_loop._should_accumulate()

    def on_fit_start(self) -> None:
        """Get ready to measure, and make what computes the gradients, if it is not eager."""
        super().on_fit_start()
        self._differentiate = None
        optimizer = self.trainer.optimizers[0]
        if isinstance(optimizer, FlatAdamW):
            losses = FlatLosses(self.network, self.terms, optimizer.filled)
            self._differentiate = differentiate(losses, self.step, self.device)
            leave_gradients_to_us(self.trainer.strategy)

    def teardown(self, stage: str) -> None:
        """Let go of what computed the gradients, and of a GPU's memory with it."""
        super().teardown(stage)
        self._differentiate, self._gradients = None, []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch; its terms are logged where loggers write."""
        self.seed_step(batch_idx)
        inputs = self.prepare(batch)
        if self._differentiate is None:
            terms = self.terms(inputs)
        else:
            terms, self._gradients = self._differentiate(inputs)
        if self.is_logged or is_last_batch(self.trainer, batch_idx):
            self._log_training({name: value.detach().float() for name, value in terms.items()})
        return terms["loss"]

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add the batch's gradients to those of the step; eagerly by Lightning's own backward pass."""
        if self._differentiate is None:
            super().backward(loss, *args, **kwargs)
        else:
            add_gradients(self.trained_tensors, self._gradients, 1 / self.trainer.accumulate_grad_batches)

    @property
    def trained_tensors(self) -> list[Tensor]:
        """What is optimised, and has gradients: the network's parameters, or the buffers that hold them."""
        if self._differentiate is None:
            return list(self.network.parameters())
        return optimized_tensors(self.trainer.optimizers[0])

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Average what no strategy does, and log the gradient norm, before clipping, where loggers write."""
        if self._differentiate is not None:
            average_gradients(self.trained_tensors)
        if self.is_logged:
            gradients = [x.grad for x in self.trained_tensors if x.grad is not None]
            self.log("train/gradient_norm", nn.utils.get_total_norm(gradients))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says; under bf16 too, where Lightning refuses fused optimisers.

        They step on scaled gradients only under float16, which :func:`check_trainer` refuses.
        """
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.trained_tensors, gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.trained_tensors, gradient_clip_val)

    @property
    def is_logged(self) -> bool:
        """Whether loggers write at the step that this batch belongs to."""
        return self.is_logged_at(self.trainer.global_step + 1)

    def _progress(self) -> float:
        return run_progress(self.trainer, self.trainer.accumulate_grad_batches)

    def _log_training(self, terms: Mapping[str, Tensor]) -> None:
        terms = average_over_ranks(dict(terms))  # each rank's loss is that of its own rows
        self.log("train/loss", terms.pop("loss"), prog_bar=True)
        self.log_dict({f"train/loss_{name}": value for name, value in terms.items()})
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # there is one
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])
