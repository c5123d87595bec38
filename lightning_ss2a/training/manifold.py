"""Training of the Cross-Modal Sound Source (CMSS) manifold: L_fold = L_c + L_r + kl_weight * L_kl (paper, Eq. 5)."""

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lightning_ss2a.callbacks.protocols import TrainsManifold
from lightning_ss2a.callbacks.trainer_state import is_last_batch
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.losses import ContrastiveOptions
from lightning_ss2a.metric_names import OWN
from lightning_ss2a.models import Manifold, ManifoldOptions
from lightning_ss2a.models.ema import frozen_copy
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.seeding import mix_seed, run_seed
from lightning_ss2a.training.base import MeasuredModule
from lightning_ss2a.training.manifold_losses import Batch, ManifoldLosses
from lightning_ss2a.training.optimization import (
    AlternatingOptimizationOptions,
    add_gradients,
    average_gradients,
    average_over_ranks,
    build_adamw,
    build_schedule,
    clip_gradients,
    optimized_tensors,
    run_progress,
)
from lightning_ss2a.training.resume import global_batch, rank_share
from lightning_ss2a.training.step import Step
from lightning_ss2a.training.step.differentiate import Differentiate, differentiate
from lightning_ss2a.training.step.flat_adamw import FlatAdamW
from lightning_ss2a.training.step.flat_losses import FlatLosses
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.measuring import MeasuringOptions
from lightning_ss2a.training.validation.pairs import PairPrediction, pair_baselines, pair_metrics
from lightning_ss2a.training.validation.targets import targets_of
from lightning_ss2a.training.variational import SamplingOptions

TEACHER = "teacher."
PROJECTORS, RECONSTRUCTOR, BOTH = 0, 1, 2
"""Turns: numbers of the optimisers, and of both at once."""
LOSS_TERMS = ("contrastive", "reconstruction", "kl", "consistency")
Alternation = Literal["exact", "shared_forward"]


class ManifoldModule(MeasuredModule, TrainsManifold):
    """Learns the projectors and the reconstructor of a :class:`~lightning_ss2a.models.Manifold` from pairs.

    Each step optimises in turn (paper, "Manifold Learning"): the projectors on the whole of L_fold with the
    reconstructor held fixed, then the reconstructor on its share of L_fold, with the projectors held fixed. The
    contrastive loss does not depend on the reconstructor, so its turn leaves that out.

    The callback ``EMATeacher`` gives it a ``teacher``, a copy that follows it, and a ``consistency_weight``. The
    teacher is a submodule, so that checkpoints hold it and devices move it, but no optimiser sees it.

    ``global_step``, ``max_steps`` and ``every_n_train_steps`` count batches stepped, not optimisers.

    Args:
        visual_width: width of the visual embeddings; linked from the data's manifest.
        audio_width: width of the audio embeddings; linked from the data's manifest.
        manifold: architecture of the three networks.
        sampling: what the losses see of an embedding's Gaussian.
        contrastive: the contrastive loss.
        kl_weight: λ_1 of Eq. 5, weight of the summed KL divergences, at least 0.
        alternation: ``exact``: the reconstructor sees the projectors as just updated (a second projector pass without
            gradients); ``shared_forward``: both steps use the gradients of one pass, cheaper and off by one update.
        optimization: both optimisers.
        step: ``eager``; ``compiled``: gradients by functions that ``torch.compile`` makes; ``graph``: these, captured
            as CUDA graphs and replayed.
        measuring: the metrics of validation and test.
    """

    DATA: ClassVar = {"pairs": "visual"}
    optimization: AlternatingOptimizationOptions
    measuring: MeasuringOptions

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        manifold: ManifoldOptions = ManifoldOptions(),
        sampling: SamplingOptions = SamplingOptions(),
        contrastive: ContrastiveOptions = ContrastiveOptions(),
        kl_weight: float = 5e-5,
        alternation: Alternation = "exact",
        optimization: AlternatingOptimizationOptions = AlternatingOptimizationOptions(),
        step: Step = "eager",
        measuring: MeasuringOptions = MeasuringOptions(),
    ) -> None:
        super().__init__(locals(), audio_width, visual_width, optimization, step, measuring)
        check = OptionCheck("model")
        check.at_least(0, kl_weight=kl_weight)
        check.one_of(get_args(Alternation), alternation=alternation)
        if not contrastive.ccmr_mask_diagonal and contrastive.ccmr_alpha == 0:
            rank_zero_warn(
                "model.contrastive.ccmr_mask_diagonal=false has no effect with model.contrastive.ccmr_alpha=0: "
                "there is no mask"
            )
        self.automatic_optimization = False
        self.sampling, self.contrastive, self.kl_weight = sampling, contrastive, kl_weight
        self.alternation = alternation
        self.manifold = Manifold(visual_width, audio_width, manifold)
        self.teacher: Manifold | None = None
        self.consistency_weight = 0.0
        self.validate_teacher = False
        self.loss_terms = ManifoldLosses(self.manifold, sampling, contrastive, kl_weight)
        self._pending: list[Batch] = []
        self._latest_terms: dict[str, Tensor] | None = None
        self._latest_learning_rate = 0.0
        self._flat_turns: dict[int, Differentiate] = {}

    @property
    def architecture_options(self) -> dict[str, Any]:
        """Options that the weights depend on, beside the widths."""
        return {"manifold": self.manifold.options.architecture()}

    # ---------------------------------------------------------------- set-up

    def start_teacher(self) -> None:
        """Takes a frozen copy of the manifold as the teacher."""
        self.teacher = frozen_copy(self.manifold)

    def restart_student(self) -> None:
        """Draws the manifold's weights anew, from the run's seed and the epoch; optimisers forget the old ones."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix_seed(run_seed(), self.current_epoch))
            fresh = Manifold(self.manifold.visual_width, self.manifold.audio_width, self.manifold.options)
        self.manifold.load_state_dict(fresh.state_dict())  # in place: optimisers and graphs know these tensors
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()

    @property
    def evaluated_manifold(self) -> Manifold:
        """What validation, test and prediction see: the teacher if ``validate_teacher`` and there is one."""
        return self.teacher if self.validate_teacher and self.teacher is not None else self.manifold

    def configure_optimizers(self) -> tuple[list, list]:
        """Makes one AdamW for the projectors and the temperature, one for the reconstructor, each with its schedule."""
        halves = (self.projector_parameters, self.reconstructor_parameters)
        flat = self.step != "eager"
        optimizers = [build_adamw(parameters, self.optimization, flat) for parameters in halves]
        schedulers = [build_schedule(optimizer, self.optimization, self._progress) for optimizer in optimizers]
        return optimizers, schedulers

    @property
    def has_pending_batches(self) -> bool:
        """Whether batches wait for the step they belong to; a checkpoint taken now carries them."""
        return bool(self._pending)

    @cached_property  # asked for twice a step; collecting them costs as much as a small layer
    def projector_parameters(self) -> list[nn.Parameter]:
        """Parameters of the projectors' turn: both projectors and the temperature."""
        reconstructor = {id(p) for p in self.manifold.audio_reconstructor.parameters()}
        return [p for p in self.manifold.parameters() if id(p) not in reconstructor]

    @cached_property
    def reconstructor_parameters(self) -> list[nn.Parameter]:
        """Parameters of the reconstructor's turn."""
        return list(self.manifold.audio_reconstructor.parameters())

    def build_validation(self, data: ShardDataModule) -> EpochMetrics[PairPrediction]:
        """Makes the metrics of pairs."""
        return pair_metrics(self.measuring.top_n, len(data.classes) or None, data.label_head is not None)

    def setup(self, stage: str) -> None:
        """Begins a run: no batches wait, and a teacher of another run is gone; see the base for the rest."""
        self._pending, self._latest_terms = [], None
        if stage == "fit":
            self.teacher, self.consistency_weight = None, 0.0
        super().setup(stage)

    def on_fit_start(self) -> None:
        """Gets ready to measure; takes this rank's share of batches that a checkpoint left waiting for their step."""
        super().on_fit_start()
        self._flat_turns = self._build_flat_turns()
        self._pending = [rank_share(self, batch) for batch in self._pending]

    def teardown(self, stage: str) -> None:
        """Lets go of what computed the gradients, and of a GPU's memory with it."""
        super().teardown(stage)
        self._flat_turns, self._latest_terms = {}, None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps global batches that wait for their step."""
        super().on_save_checkpoint(checkpoint)
        if self._pending:
            checkpoint["pending_batches"] = [global_batch(self, batch) for batch in self._pending]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes back global batches that waited for their step; has a teacher if the checkpoint has one."""
        super().on_load_checkpoint(checkpoint)
        if not any(name.startswith(TEACHER) for name in checkpoint["state_dict"]):
            self.teacher = None
        elif self.teacher is None:
            self.start_teacher()
        self._pending = checkpoint.get("pending_batches", [])

    # ---------------------------------------------------------------- training

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects batches until a step is due, then steps the projectors and the reconstructor in turn."""
        self.seed_step(batch_idx)
        self._pending.append(batch)
        is_last = is_last_batch(self.trainer, batch_idx)
        is_logged = self.is_logged or is_last
        if len(self._pending) >= self.optimization.accumulate_batches or is_last:
            # The terms of a step over several batches may be logged at a later batch.
            self._latest_terms = self._optimize(with_norm=is_logged or self.optimization.accumulate_batches > 1)
        if self._latest_terms is not None and is_logged:
            self._log_training(self._latest_terms)

    def _optimize(self, with_norm: bool) -> dict[str, Tensor]:
        """Steps on the pending batches.

        Args:
            with_norm: measure the norm of the projectors' gradient even where nothing is clipped.

        Returns:
            the detached terms of the loss, means over the batches, and the norm.
        """
        batches, self._pending = self._pending, []
        if self.alternation == "exact":
            terms = self._differentiate(PROJECTORS, batches)
            norm = self._step(PROJECTORS, with_norm)
            self._differentiate(RECONSTRUCTOR, batches)
        else:
            terms = self._differentiate(BOTH, batches)
            norm = self._step(PROJECTORS, with_norm)
        self._step(RECONSTRUCTOR)
        if norm is not None:
            terms["gradient_norm_projectors"] = norm
        self._latest_learning_rate = self._optimizer(PROJECTORS).param_groups[0]["lr"]
        schedulers = self.lr_schedulers()
        assert isinstance(schedulers, list)  # there are two
        for scheduler in schedulers:
            assert isinstance(scheduler, LambdaLR)
            scheduler.step()
        return terms

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Computes the terms of L_fold for a batch, see :meth:`ManifoldLosses.all_terms`."""
        teacher = self.teacher if self.consistency_weight > 0 else None
        return self.loss_terms.all_terms(batch, teacher, self.consistency_weight)

    def reconstructor_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Computes the terms of L_fold that depend on the reconstructor; nothing flows back to the projectors."""
        return self.loss_terms.reconstructor_terms(batch)

    def _differentiate(self, turn: int, batches: list[Batch]) -> dict[str, Tensor]:
        """Leaves the gradients of a turn's mean loss over the batches; returns the detached means of its terms."""
        means: dict[str, Tensor] = {}
        with self._others_held_still(turn):
            for batch in batches:
                terms = self._backward(turn, batch, len(batches))
                for name, value in terms.items():
                    means[name] = value if len(batches) == 1 else means.get(name, 0) + value / len(batches)
        return means

    def _others_held_still(self, turn: int) -> AbstractContextManager:
        """Keeps gradients from what a turn does not move, and from DistributedDataParallel's hooks."""
        if self._flat_turns:  # which differentiate by nothing else, and reach no hook
            return nullcontext()
        if turn != BOTH:
            return self._optimizer(turn).toggle_model(sync_grad=False)
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _backward(self, turn: int, batch: Batch, batches: int) -> dict[str, Tensor]:
        """Adds the gradients of a turn's loss, one of so many batches; returns its detached terms."""
        if self._flat_turns:
            terms, gradients = self._flat_turns[turn](self._inputs(turn, batch))
            add_gradients(self._tensors_of(turn), gradients, 1 / batches)
            return terms
        terms = self.reconstructor_losses(batch) if turn == RECONSTRUCTOR else self.losses(batch)
        self.manual_backward(terms["loss"] if batches == 1 else terms["loss"] / batches)
        return {name: value.detach() for name, value in terms.items()}

    def _inputs(self, turn: int, batch: Batch) -> Batch:
        """Takes what the losses of a turn read; the weight of consistency too, if the teacher has a say."""
        inputs = {name: batch[name] for name in ("visual", "audio")}
        if turn != RECONSTRUCTOR and self.teacher is not None and self.consistency_weight > 0:
            inputs["consistency_weight"] = torch.full((), self.consistency_weight, device=self.device)
        return inputs

    def _losses_of_inputs(self, inputs: Batch) -> dict[str, Tensor]:
        if "consistency_weight" in inputs:
            return self.loss_terms.all_terms(inputs, self.teacher, inputs["consistency_weight"])
        return self.loss_terms.all_terms(inputs)

    def _build_flat_turns(self) -> dict[int, Differentiate]:
        """Makes what computes the gradients of each turn, in a run that is not eager."""
        if self.step == "eager":
            return {}
        halves = [cast(FlatAdamW, optimizer).filled for optimizer in self.trainer.optimizers]
        if self.alternation == "exact":
            turns = {
                PROJECTORS: FlatLosses(self.manifold, self._losses_of_inputs, halves[0], halves[1]),
                RECONSTRUCTOR: FlatLosses(self.manifold, self.loss_terms.reconstructor_terms, halves[1], halves[0]),
            }
        else:
            turns = {BOTH: FlatLosses(self.manifold, self._losses_of_inputs, halves[0] + halves[1])}
        return {turn: differentiate(losses, self.step, self.device) for turn, losses in turns.items()}

    def _tensors_of(self, turn: int) -> list[Tensor]:
        """Lists what a turn moves: the parameters of its optimiser, or the buffers that hold them."""
        if turn == BOTH:
            return self._tensors_of(PROJECTORS) + self._tensors_of(RECONSTRUCTOR)
        if self._flat_turns:
            return optimized_tensors(self.trainer.optimizers[turn])
        return list((self.projector_parameters, self.reconstructor_parameters)[turn])

    def _optimizer(self, which: int) -> LightningOptimizer:
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)  # there are two
        return optimizers[which]

    def _step(self, which: int, with_norm: bool = False) -> Tensor | None:
        """Averages, clips, steps and clears one optimiser's gradients.

        Returns:
            the gradient norm before clipping; None where it is neither needed nor asked for.
        """
        optimizer = self._optimizer(which)
        tensors = self._tensors_of(which)
        average_gradients(tensors)
        max_norm = self.optimization.gradient_clip_norm
        norm = clip_gradients(tensors, max_norm) if with_norm or max_norm is not None else None
        if which == PROJECTORS:
            optimizer.step()
        else:
            # Past Lightning's counter: a batch is one global step, though two optimisers move.
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None, self)
        optimizer.zero_grad()
        return norm

    def _progress(self) -> float:
        return run_progress(self.trainer, self.optimization.accumulate_batches)

    @property
    def is_logged(self) -> bool:
        """Whether loggers write at this batch; Lightning counts batches through all epochs."""
        return self.is_logged_at(self.trainer.fit_loop.epoch_loop.total_batch_idx + 1)

    def _log_training(self, terms: dict[str, Tensor]) -> None:
        terms = average_over_ranks(terms)  # each rank's loss is that of its own rows
        self.log("train/loss", terms["loss"], prog_bar=True)
        self.log_dict({f"train/loss_{name}": terms[name] for name in LOSS_TERMS if name in terms})
        self.log("train/temperature", self.manifold.temperature.detach())
        self.log("train/gradient_norm_projectors", terms["gradient_norm_projectors"])
        self.log("train/learning_rate", self._latest_learning_rate)

    # ---------------------------------------------------------------- evaluation

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Puts CMSS embeddings (means, [rows, manifold width]) under ``visual`` and ``audio``; other fields stay."""
        manifold = self.evaluated_manifold
        visual, audio = manifold.project_visual(batch["visual"]), manifold.project_audio(batch["audio"])
        return {**batch, "visual": visual.mean.float(), "audio": audio.mean.float()}

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measures a batch of pairs; returns the means of its embeddings for the figures."""
        manifold = self.evaluated_manifold
        visual, audio = manifold.project_visual(batch["visual"]).mean, manifold.project_audio(batch["audio"]).mean
        own = PairPrediction(manifold.reconstruct_audio(visual).mean, visual, audio)
        self.add_predictions(targets_of(batch), {OWN: own}, pair_baselines)
        return {"visual_embedding": visual, "audio_embedding": audio}
