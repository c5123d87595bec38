"""Training of the Cross-Modal Sound Source (CMSS) manifold: L_fold = L_c + L_r + kl_weight * L_kl (paper, Eq. 5)."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from lightning_ss2a.callbacks.protocols import TrainsManifold
from lightning_ss2a.metrics.names import OWN
from lightning_ss2a.models import Manifold
from lightning_ss2a.models.ema import frozen_copy
from lightning_ss2a.training.checks import arguments_of_the_model, check_minima, warn_without_effect
from lightning_ss2a.training.manifold_losses import Batch, ManifoldLosses
from lightning_ss2a.training.measured import MeasuredModule
from lightning_ss2a.training.optimization import (
    Schedule,
    average_gradients,
    average_over_ranks,
    build_adamw,
    build_schedule,
    clip_gradients,
    run_progress,
)
from lightning_ss2a.training.resume import global_batch, rank_share
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.pairs import PairPrediction, pair_baselines, pair_metrics
from lightning_ss2a.training.validation.targets import targets_of

TEACHER = "teacher."
LOSS_TERMS = ("contrastive", "reconstruction", "kl", "consistency")


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
        manifold_width: width of the CMSS embeddings.
        projector_widths: layer widths of the visual and the audio projector.
        reconstructor_widths: layer widths of the audio reconstructor.
        dropout: dropout probability after each layer.
        input_scaling: bring inputs to unit variance a coordinate (see ``models.VariationalMLP``).
        initial_log_variance: log-variance that the variance heads start at.
        variant: layer order, the paper's or the published weights'.
        embedding: what the losses see of an embedding's Gaussian: a ``sample`` or its ``mean``.
        draws: samples averaged into one embedding, in closed form.
        ccmr_alpha: alpha of the CCMR mask, Eq. 7; 0 switches the mask off.
        ccmr_mask_diagonal: whether the mask also weakens the matching pairs, as Eq. 7 is written.
        kl_weight: lambda_1, weight of the summed KL divergences.
        contrastive_chunk_size: rows of the similarity matrix held at a time; None: all. Saves memory for large batches.
        alternation: ``exact``: the reconstructor sees the projectors as just updated (a second projector pass without
            gradients); ``shared_forward``: both steps use the gradients of one pass, cheaper and off by one update.
        learning_rate: peak learning rate of both AdamW optimisers.
        weight_decay: decoupled weight decay of the weight matrices.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: learning rate after the warm-up; ``cosine`` follows the part of ``max_epochs`` that is done, in both
            stages of an EMATeacher.
        gradient_clip_norm: largest gradient norm, for the projectors and for the reconstructor; None: no clipping.
        accumulate_batches: batches whose gradients are averaged into one step. Negatives stay within a batch.
        compile_model: compile the three networks with ``torch.compile``, for training; a teacher is not compiled.
        top_n: labels a side that SSMS compares (N of the paper).
        translator_checkpoint: safetensors file with a linear audio-to-visual map (``weight``, ``bias``) for the CLIP
            score; None: a ridge regression fitted on the training split.
    """

    DATA: ClassVar = {"pairs": {"visual_width": "visual", "audio_width": "audio"}}
    owns_optimization = True

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        manifold_width: int = 768,
        projector_widths: Sequence[int] = (768, 768, 1536, 1536, 3072, 3072),
        reconstructor_widths: Sequence[int] = (768, 768, 896, 896, 1024, 1024, 2048, 2048),
        dropout: float = 0.2,
        input_scaling: bool = True,
        initial_log_variance: float = -4.0,
        variant: Literal["paper", "published"] = "paper",
        embedding: Literal["sample", "mean"] = "sample",
        draws: int = 1,
        ccmr_alpha: float = 0.35,
        ccmr_mask_diagonal: bool = True,
        kl_weight: float = 5e-5,
        contrastive_chunk_size: int | None = None,
        alternation: Literal["exact", "shared_forward"] = "exact",
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        gradient_clip_norm: float | None = None,
        accumulate_batches: int = 1,
        compile_model: bool = False,
        top_n: int = 10,
        translator_checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_minima(self.hparams)
        warn_without_effect(self.hparams)
        self.automatic_optimization = False
        with arguments_of_the_model():
            self.manifold = Manifold(
                visual_width,
                audio_width,
                manifold_width=manifold_width,
                projector_widths=list(projector_widths),
                reconstructor_widths=list(reconstructor_widths),
                dropout=dropout,
                input_scaling=input_scaling,
                initial_log_variance=initial_log_variance,
                variant=variant,
            )
        self.teacher: Manifold | None = None
        self.consistency_weight = 0.0
        self.validate_teacher = False
        self._losses = ManifoldLosses(self.manifold, self.hparams)
        self._pending: list[Batch] = []
        self._latest_terms: dict[str, Tensor] | None = None
        self._latest_learning_rate = 0.0

    # ---------------------------------------------------------------- set-up

    def configure_model(self) -> None:
        """Compile the networks in place, so that checkpoints keep their names."""
        if self.hparams.compile_model:
            for network in self.manifold.children():
                network.compile()

    def start_teacher(self) -> None:
        """Take a frozen copy of the manifold as the teacher."""
        self.teacher = frozen_copy(self.manifold)

    @property
    def evaluated_manifold(self) -> Manifold:
        """What validation, test and prediction see: the teacher if ``validate_teacher`` and there is one."""
        return self.teacher if self.validate_teacher and self.teacher is not None else self.manifold

    def configure_optimizers(self) -> tuple[list, list]:
        """One AdamW for the projectors and the temperature, one for the reconstructor, each with its schedule."""
        hparams = self.hparams
        optimizers = [
            build_adamw(parameters, hparams.learning_rate, hparams.weight_decay)
            for parameters in (self.projector_parameters, self.reconstructor_parameters)
        ]
        schedulers = [build_schedule(o, hparams.warmup_steps, hparams.schedule, self._progress) for o in optimizers]
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

    def build_validation(self, data: LightningDataModule) -> EpochMetrics[PairPrediction]:
        """Metrics of pairs."""
        return pair_metrics(self.hparams.top_n, len(data.classes) or None, data.label_head is not None)

    def setup(self, stage: str) -> None:
        """Begin a run: no batches wait, and a teacher of another run is gone; see the base for the rest."""
        self._pending, self._latest_terms = [], None
        if stage == "fit":
            self.teacher, self.consistency_weight = None, 0.0
        super().setup(stage)

    def on_fit_start(self) -> None:
        """Get ready to measure; take this rank's share of batches that a checkpoint left waiting for their step."""
        super().on_fit_start()
        self._pending = [rank_share(self, batch) for batch in self._pending]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep global batches that wait for their step."""
        super().on_save_checkpoint(checkpoint)
        if self._pending:
            checkpoint["pending_batches"] = [global_batch(self, batch) for batch in self._pending]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back global batches that waited for their step; have a teacher if the checkpoint has one."""
        super().on_load_checkpoint(checkpoint)
        if not any(name.startswith(TEACHER) for name in checkpoint["state_dict"]):
            self.teacher = None
        elif self.teacher is None:
            self.start_teacher()
        self._pending = checkpoint.get("pending_batches", [])

    # ---------------------------------------------------------------- training

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect batches until a step is due, then step the projectors and the reconstructor in turn."""
        self.seed_step(batch_idx)
        self._pending.append(batch)
        if len(self._pending) >= self.hparams.accumulate_batches or self.is_last_batch(batch_idx):
            self._latest_terms = self._optimize()
        if self._latest_terms is not None and (self.is_logged or self.is_last_batch(batch_idx)):
            self._log_training(self._latest_terms)

    def _optimize(self) -> dict[str, Tensor]:
        """Step on the pending batches; returns the detached terms of the loss, means over the batches."""
        batches, self._pending = self._pending, []
        if self.hparams.alternation == "exact":
            terms = self._projector_turn(batches)
            self._reconstructor_turn(batches)
        else:
            terms = self._shared_turn(batches)
        self._latest_learning_rate = self.optimizers()[0].param_groups[0]["lr"]
        for scheduler in self.lr_schedulers():
            scheduler.step()
        return terms

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of L_fold for a batch, see :class:`~lightning_ss2a.training.manifold_losses.ManifoldLosses`."""
        return self._losses.all_terms(batch, self.teacher, self.consistency_weight)

    def reconstructor_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of L_fold that depend on the reconstructor; nothing flows back to the projectors."""
        return self._losses.reconstructor_terms(batch)

    def _projector_turn(self, batches: list[Batch]) -> dict[str, Tensor]:
        projectors, _ = self.optimizers()
        with projectors.toggle_model(sync_grad=False):  # the reconstructor's parameters need no gradients here
            terms = self._backward(batches, self.losses)
        terms["gradient_norm_projectors"] = self._step(0)
        return terms

    def _reconstructor_turn(self, batches: list[Batch]) -> None:
        _, reconstructor = self.optimizers()
        with reconstructor.toggle_model(sync_grad=False):
            self._backward(batches, self.reconstructor_losses)
        self._step(1)

    def _shared_turn(self, batches: list[Batch]) -> dict[str, Tensor]:
        strategy = self.trainer.strategy
        with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext():
            terms = self._backward(batches, self.losses)
        terms["gradient_norm_projectors"] = self._step(0)
        self._step(1)
        return terms

    def _backward(self, batches: list[Batch], losses: Callable[[Batch], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Accumulate the gradients of the mean loss over the batches; returns the detached means of its terms."""
        totals: dict[str, Tensor] = {}
        for batch in batches:
            terms = losses(batch)
            self.manual_backward(terms["loss"] / len(batches))
            for name, value in terms.items():
                totals[name] = totals.get(name, 0) + value.detach() / len(batches)
        return totals

    def _step(self, which: int) -> Tensor:
        """Average, clip, step and clear one optimiser's gradients; returns the gradient norm before clipping."""
        optimizer = self.optimizers()[which]
        parameters = (self.projector_parameters, self.reconstructor_parameters)[which]
        average_gradients(parameters)
        norm = clip_gradients(parameters, self.hparams.gradient_clip_norm)
        if which == 0:
            optimizer.step()
        else:
            # Past Lightning's counter: a batch is one global step, though two optimisers move.
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None, self)
        optimizer.zero_grad()
        return norm

    def _progress(self) -> float:
        return run_progress(self.trainer, self.hparams.accumulate_batches)

    @property
    def is_logged(self) -> bool:
        """Whether loggers write at this batch; Lightning counts batches through all epochs."""
        interval = self.trainer.log_every_n_steps
        return interval > 0 and (self.trainer.fit_loop.epoch_loop.total_batch_idx + 1) % interval == 0

    def _log_training(self, terms: dict[str, Tensor]) -> None:
        terms = average_over_ranks(terms)  # each rank's loss is that of its own rows
        self.log("train/loss", terms["loss"], prog_bar=True)
        self.log_dict({f"train/loss_{name}": terms[name] for name in LOSS_TERMS if name in terms})
        self.log("train/temperature", self.manifold.temperature.detach())
        self.log("train/gradient_norm_projectors", terms["gradient_norm_projectors"])
        self.log("train/learning_rate", self._latest_learning_rate)

    # ---------------------------------------------------------------- evaluation

    @torch.compiler.set_stance("force_eager")
    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """CMSS embeddings (means, [rows, manifold width]) under ``visual`` and ``audio``; other fields unchanged."""
        manifold = self.evaluated_manifold
        visual, audio = manifold.project_visual(batch["visual"]), manifold.project_audio(batch["audio"])
        return {**batch, "visual": visual.mean.float(), "audio": audio.mean.float()}

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measure a batch of pairs; returns the means of its embeddings for the figures."""
        manifold = self.evaluated_manifold
        visual, audio = manifold.project_visual(batch["visual"]).mean, manifold.project_audio(batch["audio"]).mean
        targets = targets_of(batch)
        self.validation.update(
            targets,
            {OWN: PairPrediction(manifold.reconstruct_audio(visual).mean, visual, audio)},
            lambda: pair_baselines(targets, self.statistics),
            self.statistics,
            self._label_head,
        )
        return {"visual_embedding": visual, "audio_embedding": audio}
