"""Training of the Sound Source Remixer: L_mix = |1 - cos(a, a_mix)| + kl_weight * L_kl (paper, Eq. 9)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.metrics import MeanCosine
from lightning_ss2a.metrics.names import OWN
from lightning_ss2a.models import DiagonalGaussian, Manifold, Remixer, cycle_mix
from lightning_ss2a.models.cycle_mix import CycleMixResult, Feedback, Score
from lightning_ss2a.models.layers.keyed_noise import keyed_draw
from lightning_ss2a.models.layers.variational_mlp import Variant
from lightning_ss2a.models.remixer import HEAD_WIDTHS, MAX_SLOTS, Conditions, TokenDropout
from lightning_ss2a.models.source_slots import SourceSlots, join_slots, mean_of_sources, visual_slots
from lightning_ss2a.training.checks import arguments_of_the_model
from lightning_ss2a.training.optimization import Schedule
from lightning_ss2a.training.pretrained import build_manifold, read_manifold, same_weights
from lightning_ss2a.training.projection_cache import ProjectionCache
from lightning_ss2a.training.stage import StageModule
from lightning_ss2a.training.validation.baselines import BASELINES, untrained_predictions
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.predicted_audio import audio_metrics
from lightning_ss2a.training.validation.targets import targets_of
from lightning_ss2a.training.variational import cosine_losses

SOURCE_FIELDS = ("sources", "global_visual")


class RemixerModule(StageModule):
    """Learns a :class:`~lightning_ss2a.models.Remixer` from scenes, on the embeddings of a frozen manifold.

    A scene's tokens are those of its global embedding and of its sources, in this order. Where a scene has more sources
    than slots, the first are taken, in the order of the data: sources that matter most belong first.

    The manifold projects each different embedding of the data once, before the first epoch; the sampling noise of e is
    drawn anew each time. Data that are streamed, since they do not fit in memory, are projected batch by batch. The
    manifold stays in the Remixer's checkpoints, which need no other file.

    Validation measures the Gaussian's mean, one draw (``METRIC/draw``), Cycle Mix if asked to (``METRIC/cycle_mix``),
    and as floors besides those of the data the mean of the sources' χ(e_m) (``source_mean``) and χ of the global
    embedding (``global``). ``val/draw_cosine`` is the mean cosine between two draws: near 1, Cycle Mix has nothing to
    choose from.

    Args:
        visual_width: width of the visual embeddings; linked from the data's manifest.
        audio_width: width of the audio embeddings; linked from the data's manifest.
        manifold_checkpoint: checkpoint of a ``ManifoldModule``; a checkpoint of this module has it in itself.
        manifold_teacher: take the mean teacher in that checkpoint instead of the student.
        manifold_architecture: widths and such of the manifold, as read from the checkpoint; leave it out.
        use_global: give the Remixer the scene's global embedding as one more token.
        conditions: parts of the tokens that are used (Table 3).
        source_embedding: what e is while training: a ``sample`` of the manifold's Gaussian or its ``mean``.
        width: width of the tokens.
        num_layers: attention blocks.
        num_heads: attention heads, a divisor of ``width``.
        head_widths: hidden layers of both heads.
        expansion: hidden width of a block's feed-forward network over ``width``.
        dropout: dropout probability.
        token_dropout: probability of zeroing a token in training (classifier-free guidance).
        token_dropout_mode: zero e and v of a token together (``whole``) or each on its own (``parts``).
        input_scaling: bring e and v to unit variance a coordinate.
        unit_mean: L2-normalise the Gaussian's mean, so that training cannot shrink the noise beside it.
        initial_log_variance: log-variance that the variance head starts at.
        mask_padding: leave empty slots out of attention; False: pad to ``max_slots`` and attend to all, as published.
        max_slots: tokens that a scene may have, the global one included.
        variant: layers as in the paper or as in the released weights.
        embedding: what the loss sees of the mixed Gaussian: a ``sample`` or its ``mean``.
        draws: samples averaged into one embedding, in closed form.
        kl_weight: lambda_2 of Eq. 9.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay of the weight matrices.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: learning rate after the warm-up; ``cosine`` follows the part of ``max_epochs`` that is done.
        compile_model: compile the network with ``torch.compile``, for training.
        top_n: labels a side that SSMS compares (N of the paper).
        translator_checkpoint: checkpoint of an ``AudioToVisualModule``, or safetensors file with a linear map
            (``weight``, ``bias``), for the CLIP score; None: a ridge regression fitted on the training split.
        validate_cycle_mix: measure Cycle Mix too. It draws ``cycle_iterations`` x ``cycle_samples`` embeddings a scene.
        cycle_iterations: T of Algorithm 1.
        cycle_samples: N of Algorithm 1.
        cycle_score: how a draw is scored against the sources, see ``models.cycle_mix``.
        cycle_feedback: where the best draw goes, see ``models.cycle_mix``.
        cycle_var_samples: draws averaged into one sample of Cycle Mix, in closed form; as published 64.
        cycle_feedback_samples: draws of φ(a_best) averaged; 0: its mean. As published 64.
        cycle_noise_scale: multiplies the Remixer's standard deviations in Cycle Mix.
    """

    DATA: ClassVar = {"scenes": {"visual_width": "global_visual", "audio_width": "audio"}}

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        manifold_checkpoint: str | None = None,
        manifold_teacher: bool = False,
        manifold_architecture: dict[str, Any] | None = None,
        use_global: bool = True,
        conditions: Conditions = "manifold+visual",
        source_embedding: Literal["sample", "mean"] = "sample",
        width: int = 768,
        num_layers: int = 1,
        num_heads: int = 8,
        head_widths: Sequence[int] = HEAD_WIDTHS,
        expansion: int = 1,
        dropout: float = 0.2,
        token_dropout: float = 0.2,
        token_dropout_mode: TokenDropout = "whole",
        input_scaling: bool = True,
        unit_mean: bool = False,
        initial_log_variance: float = -4.0,
        mask_padding: bool = True,
        max_slots: int = MAX_SLOTS,
        variant: Variant = "paper",
        embedding: Literal["sample", "mean"] = "sample",
        draws: int = 1,
        kl_weight: float = 5e-5,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        compile_model: bool = False,
        top_n: int = 10,
        translator_checkpoint: str | None = None,
        validate_cycle_mix: bool = False,
        cycle_iterations: int = 64,
        cycle_samples: int = 64,
        cycle_score: Score = "mean",
        cycle_feedback: Feedback = "append",
        cycle_var_samples: int = 1,
        cycle_feedback_samples: int = 0,
        cycle_noise_scale: float = 1.0,
    ) -> None:
        super().__init__()
        manifold_state = None
        if manifold_architecture is None:
            if manifold_checkpoint is None:
                raise InputError(
                    "model.manifold_checkpoint is missing: train a manifold first, then name its checkpoint, such as "
                    "runs/manifold/version_0/checkpoints/best.ckpt"
                )
            option = "model.manifold_checkpoint"
            manifold_architecture, manifold_state = read_manifold(manifold_checkpoint, option, manifold_teacher)
        self.save_hyperparameters()
        self.hparams.manifold_architecture = manifold_architecture  # the command line saves what it was given, not this
        self.check_hyperparameters()
        if max_slots < 1 + use_global:
            beside = " and the global embedding" if use_global else ""
            raise InputError(f"model.max_slots is {max_slots}, needs room for a source{beside}")
        if cycle_feedback == "replace" and not use_global:
            raise InputError("model.cycle_feedback=replace overwrites the global embedding: it needs model.use_global")
        self._check_manifold(manifold_architecture)
        self.manifold = build_manifold(manifold_architecture, manifold_state)
        self._has_manifold_weights = manifold_state is not None
        with arguments_of_the_model():
            self.remixer = Remixer(
                manifold_architecture["manifold_width"],
                visual_width,
                audio_width,
                width=width,
                num_layers=num_layers,
                num_heads=num_heads,
                head_widths=list(head_widths),
                expansion=expansion,
                dropout=dropout,
                token_dropout=token_dropout,
                token_dropout_mode=token_dropout_mode,
                conditions=conditions,
                input_scaling=input_scaling,
                unit_mean=unit_mean,
                initial_log_variance=initial_log_variance,
                mask_padding=mask_padding,
                max_slots=max_slots,
                variant=variant,
            )
        self._projections: ProjectionCache | None = None

    # ---------------------------------------------------------------- what MeasuredModule and StageModule ask for

    @property
    def network(self) -> nn.Module:
        """The Remixer; the manifold is frozen."""
        return self.remixer

    def build_validation(self, data: LightningDataModule) -> EpochMetrics[Tensor]:
        """Metrics of mixed audio embeddings."""
        variants = ["draw", "cycle_mix"] if self.hparams.validate_cycle_mix else ["draw"]
        baselines = [*BASELINES, "source_mean", "global"]
        extra = {"draw_cosine": MeanCosine()}
        return audio_metrics(self.hparams.top_n, data.label_head is not None, True, variants, baselines, extra)

    def setup(self, stage: str) -> None:
        """See :class:`MeasuredModule`; projections of a run that was interrupted are those of other data."""
        super().setup(stage)
        self._projections = None

    def on_fit_start(self) -> None:
        """Get ready to measure, and project every embedding of the data once.

        Raises:
            InputError: there is no manifold: neither a checkpoint of one nor one of a Remixer was read.
        """
        super().on_fit_start()
        if not self._has_manifold_weights:
            self._load_manifold()
        if not self.trainer.datamodule.is_streamed:  # or what does not fit would be kept, projected
            self._projections = ProjectionCache(self.manifold.project_visual, self._embeddings_of_the_data())

    def on_fit_end(self) -> None:
        """Free the projections."""
        self._projections = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take its manifold.

        Raises:
            InputError: the run to be resumed was trained on another manifold than the one named now.
        """
        super().on_load_checkpoint(checkpoint)
        if self._has_manifold_weights and not same_weights(checkpoint["state_dict"], "manifold.", self.manifold):
            trained_on = checkpoint.get("hyper_parameters", {}).get("manifold_checkpoint")
            raise InputError(
                f"the checkpoint's Remixer was trained on another manifold ({trained_on}) than that of "
                f"model.manifold_checkpoint {self.hparams.manifold_checkpoint}; name that one, or start anew"
            )
        self._has_manifold_weights = True

    def _load_manifold(self) -> None:
        """Weights for a manifold of known architecture, as the saved config of a run gives it."""
        if self.hparams.manifold_checkpoint is None:
            raise InputError("model.manifold_checkpoint is missing: an untrained manifold tells nothing")
        option, teacher = "model.manifold_checkpoint", self.hparams.manifold_teacher
        architecture, state = read_manifold(self.hparams.manifold_checkpoint, option, teacher)
        if architecture != self.hparams.manifold_architecture:
            raise InputError(f"{option} {self.hparams.manifold_checkpoint}: not of model.manifold_architecture")
        self.manifold.load_state_dict(state)
        self._has_manifold_weights = True

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of Eq. 9 for a batch of scenes: ``cosine`` and ``kl``."""
        draws = int(self.hparams.source_embedding == "sample")
        return cosine_losses(self.remixer(*self.slots(batch).tokens(draws)), batch["audio"], self.hparams)

    # ---------------------------------------------------------------- scenes to tokens

    def slots(self, batch: Batch) -> SourceSlots:
        """The slots of a batch of scenes: the global embedding, if it is used, then the sources.

        Args:
            batch: ``sources`` [B, S, V], ``valid`` [B, S], ``global_visual`` [B, V].
        """
        room = self.hparams.max_slots - self.hparams.use_global
        sources, valid = batch["sources"][:, :room], batch["valid"][:, :room]
        if batch["valid"].shape[1] > room:
            # One text for all batches, so that it is shown once.
            rank_zero_warn(f"model.max_slots leaves room for {room} sources; of scenes with more, the first are mixed")
        parts = [visual_slots(sources, valid, self._project("sources"))]
        if self.hparams.use_global:
            there = torch.ones_like(valid[:, :1])
            global_visual = batch["global_visual"].unsqueeze(1)
            parts.insert(0, visual_slots(global_visual, there, self._project("global_visual"), weight=0.0))
        return join_slots(parts)

    def _project(self, field: str) -> Callable[[Tensor], DiagonalGaussian]:
        """υ for the embeddings of a field: looked up while fitting, where each row has one embedding."""
        if self._projections is None or field in self._fields_with_views():
            return self._project_visual
        return self._projections

    @torch.no_grad()
    def _project_visual(self, visual: Tensor) -> DiagonalGaussian:
        with torch.autocast(visual.device.type, enabled=False):
            return self.manifold.project_visual(visual.float())

    def _fields_with_views(self) -> list[str]:
        """Fields of which training draws another view each time."""
        fields = self.trainer.datamodule.manifest.fields
        return [name for name in SOURCE_FIELDS if fields[name].views is not None]

    def _embeddings_of_the_data(self) -> Iterator[Tensor]:
        """All different things seen while fitting, in parts of [N, V]."""
        data = self.trainer.datamodule
        fields = [name for name in SOURCE_FIELDS if name not in self._fields_with_views()]
        for loader in (data.training_rows_loader(every_row=True), data.val_dataloader()):
            for batch in loader:
                if "sources" in fields:
                    yield batch["sources"][batch["valid"]].to(self.device)
                if "global_visual" in fields:
                    yield batch["global_visual"].to(self.device)

    # ---------------------------------------------------------------- evaluation

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measure a batch of scenes; returns what figures are drawn from.

        ``attention`` [B, S] is what [cls] takes of each slot, ``history`` [B, T] Cycle Mix's best score so far.
        """
        targets = targets_of(batch)
        if len(targets) == 0:
            return {}
        slots = self.slots(batch)
        tokens = slots.tokens()
        mixed = self.remixer(*tokens)
        draws = [keyed_draw(mixed, seed, batch["key"]) for seed in (0, 1)]
        predictions = {OWN: mixed.mean, "draw": draws[0]}
        shown = {"attention": self.remixer.attention_weights(*tokens)}
        if self.hparams.validate_cycle_mix:
            result = self.cycle_mix(batch, slots)
            predictions["cycle_mix"], shown["history"] = result.embedding, result.history

        def baselines() -> dict[str, Tensor]:
            return untrained_predictions(targets, self.statistics) | manifold_predictions(
                slots, self._project_visual(batch["global_visual"]), self.manifold
            )

        self.validation.update(targets, predictions, baselines, self.statistics, self._label_head)
        self.validation.extra["draw_cosine"].update(*draws)
        return shown

    def draw(self, batch: Batch, slots: SourceSlots, seed: int = 0) -> Tensor:
        """One draw for each scene of an evaluation batch, unit vectors [B, A]; see :meth:`cycle_mix` for arguments."""
        return keyed_draw(self.remixer(*slots.tokens()), seed, batch["key"])

    def cycle_mix(self, batch: Batch, slots: SourceSlots, seed: int = 0) -> CycleMixResult:
        """Mix the scenes of an evaluation batch by Algorithm 1, with the options ``cycle_*``.

        Args:
            batch: has the ``key`` of each scene, which seeds its noise.
            slots: of the batch.
            seed: changes the noise of all scenes.
        """
        options = self.hparams
        return cycle_mix(
            self.remixer,
            self.manifold.eval(),
            *slots.tokens(),
            batch["key"],
            seed=seed,
            cycle_iterations=options.cycle_iterations,
            cycle_samples=options.cycle_samples,
            score=options.cycle_score,
            feedback=options.cycle_feedback,
            var_samples=options.cycle_var_samples,
            feedback_samples=options.cycle_feedback_samples,
            noise_scale=options.cycle_noise_scale,
            slot_weights=slots.weight,
        )

    def without_effect(self) -> dict[tuple[str, ...], str]:
        """Options of e where only v is used."""
        if self.hparams.conditions != "visual":
            return super().without_effect()
        reason = "model.conditions=visual: no e reaches the Remixer"
        return super().without_effect() | {("source_embedding", "cycle_feedback"): reason}

    def _check_manifold(self, architecture: dict[str, Any]) -> None:
        for name in ("visual_width", "audio_width"):
            if architecture[name] != self.hparams[name]:
                raise InputError(
                    f"model.manifold_checkpoint {self.hparams.manifold_checkpoint}: its {name} is "
                    f"{architecture[name]}, and the data's embeddings have {self.hparams[name]}: another encoder"
                )


def manifold_predictions(slots: SourceSlots, global_cmss: DiagonalGaussian, manifold: Manifold) -> dict[str, Tensor]:
    """What the manifold alone predicts, [scenes, audio width] each: the mean of χ(e_m), and χ of the global e."""
    return {
        "source_mean": mean_of_sources(slots, manifold),
        "global": manifold.reconstruct_audio(global_cmss.mean).mean,
    }
