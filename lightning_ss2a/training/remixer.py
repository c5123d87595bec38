"""Training of the Sound Source Remixer: L_mix = |1 - cos(a, a_mix)| + kl_weight * L_kl (paper, Eq. 9)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.callbacks.protocols import MixesScenes, Prediction
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.metric_names import OWN
from lightning_ss2a.metrics import MeanCosine
from lightning_ss2a.models import (
    CycleMixOptions,
    CycleMixResult,
    DiagonalGaussian,
    Manifold,
    ManifoldOptions,
    Remixer,
    RemixerOptions,
    cycle_mix,
)
from lightning_ss2a.models.layers.keyed_noise import keyed_draw
from lightning_ss2a.models.source_slots import (
    SourceSlots,
    fill_slots,
    join_slots,
    mean_of_sources,
    source_audio,
    visual_slots,
    zero_projection,
)
from lightning_ss2a.options import OptionCheck, plain
from lightning_ss2a.training.base import StageModule
from lightning_ss2a.training.checks import warn_without_effect
from lightning_ss2a.training.optimization import OptimizationOptions
from lightning_ss2a.training.pretrained import StoredManifold, build_manifold, read_manifold, same_weights
from lightning_ss2a.training.projection_cache import ProjectionCache
from lightning_ss2a.training.step import Step
from lightning_ss2a.training.validation.baselines import BASELINES, TrainingStatistics, untrained_predictions
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.measuring import MeasuringOptions
from lightning_ss2a.training.validation.predicted_audio import audio_metrics
from lightning_ss2a.training.validation.targets import Targets, targets_of
from lightning_ss2a.training.variational import Embedding, SamplingOptions, cosine_losses

SOURCE_FIELDS = ("sources", "global_visual")


class RemixerModule(StageModule, MixesScenes):
    """Learns a :class:`~lightning_ss2a.models.Remixer` from scenes, on the embeddings of a frozen manifold.

    A scene's tokens are those of its global embedding and of its sources, in this order. Where a scene has more sources
    than slots, the first are taken, in the order of the data: sources that matter most belong first.

    The manifold projects each different embedding of the data once, before the first epoch; the sampling noise of e is
    drawn anew each time. Data that are streamed, since they do not fit in memory, are projected batch by batch. The
    manifold stays in the Remixer's checkpoints, which need no other file.

    Validation measures the Gaussian's mean, one draw (``METRIC/draw``), Cycle Mix if asked to (``METRIC/cycle_mix``),
    and as baselines besides those of the data the mean of the sources' χ(e_m) (``source_mean``) and χ of the global
    embedding (``global``). ``val/draw_cosine`` is the mean cosine between two draws: near 1, Cycle Mix has nothing to
    choose from.

    Args:
        visual_width: width of the visual embeddings; linked from the data's manifest.
        audio_width: width of the audio embeddings; linked from the data's manifest.
        manifold_checkpoint: checkpoint of a ``ManifoldModule``; a checkpoint of this module has it in itself.
        manifold_teacher: take the mean teacher in that checkpoint instead of the student.
        manifold_architecture: that of the manifold, as read from the checkpoint; leave it out.
        use_global: give the Remixer the scene's global embedding as one more token.
        source_embedding: what e is while training: a ``sample`` of the manifold's Gaussian or its ``mean``.
        remixer: architecture of the Remixer, and how its tokens are used.
        sampling: what the loss sees of the mixed Gaussian.
        kl_weight: λ_2 of Eq. 9, at least 0.
        optimization: the optimiser.
        step: ``eager``; ``compiled``: gradients by functions that ``torch.compile`` makes; ``graph``: these, captured
            as CUDA graphs and replayed.
        measuring: the metrics of validation and test.
        validate_cycle_mix: measure Cycle Mix too. It draws ``iterations`` x ``samples`` embeddings a scene.
        cycle_mix: Algorithm 1, in validation, test and ``ss2a shards frames``.
    """

    DATA: ClassVar = {"scenes": "global_visual"}
    measuring: MeasuringOptions
    change_training_slots: Callable[[Batch, SourceSlots], SourceSlots] | None = None
    """What studies do to the slots of a batch before they are trained on."""

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        manifold_checkpoint: str | None = None,
        manifold_teacher: bool = False,
        manifold_architecture: ManifoldOptions | None = None,
        use_global: bool = True,
        source_embedding: Embedding = "sample",
        remixer: RemixerOptions = RemixerOptions(),
        sampling: SamplingOptions = SamplingOptions(),
        kl_weight: float = 5e-5,
        optimization: OptimizationOptions = OptimizationOptions(),
        step: Step = "eager",
        measuring: MeasuringOptions = MeasuringOptions(),
        validate_cycle_mix: bool = False,
        cycle_mix: CycleMixOptions = CycleMixOptions(),
    ) -> None:
        super().__init__(locals(), audio_width, visual_width, optimization, step, measuring)
        check = OptionCheck("model")
        check.one_of(get_args(Embedding), source_embedding=source_embedding)
        check.at_least(0, kl_weight=kl_weight)
        if remixer.max_slots < 1 + use_global:
            beside = " and the global embedding" if use_global else ""
            raise InputError(f"model.remixer.max_slots is {remixer.max_slots}, needs room for a source{beside}")
        if cycle_mix.feedback == "replace" and not use_global:
            raise InputError(
                "model.cycle_mix.feedback=replace overwrites the global embedding: it needs model.use_global"
            )
        if remixer.conditions == "visual":
            warn_without_effect(
                "model.remixer.conditions=visual: no e reaches the Remixer",
                ("source_embedding", source_embedding, "sample"),
                ("cycle_mix.feedback", cycle_mix.feedback, CycleMixOptions().feedback),
            )
        self.manifold_checkpoint, self.manifold_teacher = manifold_checkpoint, manifold_teacher
        self.use_global, self.source_embedding = use_global, source_embedding
        self.sampling, self.kl_weight = sampling, kl_weight
        self.validate_cycle_mix, self.cycle_mix = validate_cycle_mix, cycle_mix
        weights = None
        if manifold_architecture is None:
            stored = self._read_manifold()
            manifold_architecture, weights = stored.options, stored.weights
        self.hparams["manifold_architecture"] = plain(manifold_architecture)  # so that checkpoints need no other file
        self.manifold = build_manifold(visual_width, audio_width, manifold_architecture, weights)
        self._has_manifold_weights = weights is not None
        self.remixer = Remixer(manifold_architecture.width, visual_width, audio_width, remixer)
        self._projections: ProjectionCache | None = None

    @property
    def architecture_options(self) -> dict[str, Any]:
        """Options that the weights depend on, beside the widths."""
        return {"remixer": self.remixer.options.architecture()}

    # ---------------------------------------------------------------- what MeasuredModule and StageModule ask for

    @property
    def network(self) -> nn.Module:
        """The Remixer; the manifold is frozen."""
        return self.remixer

    def build_validation(self, data: ShardDataModule) -> EpochMetrics[Tensor]:
        """Makes the metrics of mixed audio embeddings."""
        variants = ["draw", "cycle_mix"] if self.validate_cycle_mix else ["draw"]
        baselines = [*BASELINES, "source_mean", "global"]
        extra = {"draw_cosine": MeanCosine()}
        return audio_metrics(self.measuring.top_n, data.label_head is not None, True, variants, baselines, extra)

    def setup(self, stage: str) -> None:
        """See :class:`MeasuredModule`; projections of a run that was interrupted are those of other data."""
        super().setup(stage)
        self._projections = None

    def on_fit_start(self) -> None:
        """Gets ready to measure, and projects every embedding of the data once.

        Raises:
            InputError: there is no manifold: neither a checkpoint of one nor one of a Remixer was read.
        """
        super().on_fit_start()
        if not self._has_manifold_weights:
            self._load_manifold()
        if not self.data.is_streamed:  # or what does not fit would be kept, projected
            self._projections = ProjectionCache(self.manifold.project_visual, self._embeddings_of_the_data())

    def on_fit_end(self) -> None:
        """Frees the projections."""
        self._projections = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes its manifold.

        Raises:
            InputError: the run to be resumed was trained on another manifold than the one named now.
        """
        super().on_load_checkpoint(checkpoint)
        if self._has_manifold_weights and not same_weights(checkpoint["state_dict"], "manifold.", self.manifold):
            trained_on = checkpoint.get("hyper_parameters", {}).get("manifold_checkpoint")
            raise InputError(
                f"the checkpoint's Remixer was trained on another manifold ({trained_on}) than that of "
                f"model.manifold_checkpoint {self.manifold_checkpoint}; name that one, or start anew"
            )
        self._has_manifold_weights = True

    def _read_manifold(self) -> StoredManifold:
        option = "model.manifold_checkpoint"
        if self.manifold_checkpoint is None:
            raise InputError(
                f"{option} is missing: train a manifold first, then name its checkpoint, such as "
                "runs/manifold/version_0/checkpoints/best.ckpt"
            )
        stored = read_manifold(self.manifold_checkpoint, option, self.manifold_teacher)
        for name, width, expected in (
            ("visual_width", stored.visual_width, self.visual_width),
            ("audio_width", stored.audio_width, self.audio_width),
        ):
            if width != expected:
                raise InputError(
                    f"{option} {self.manifold_checkpoint}: its {name} is {width}, and the data's embeddings have "
                    f"{expected}: another encoder"
                )
        return stored

    def _load_manifold(self) -> None:
        """Loads weights for a manifold of known architecture, as the saved config of a run gives it."""
        if self.manifold_checkpoint is None:
            raise InputError("model.manifold_checkpoint is missing: an untrained manifold tells nothing")
        stored = self._read_manifold()
        if plain(stored.options) != plain(self.manifold.options):
            raise InputError(
                f"model.manifold_checkpoint {self.manifold_checkpoint}: not of model.manifold_architecture"
            )
        self.manifold.load_state_dict(stored.weights)
        self._has_manifold_weights = True

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Makes the tokens of a batch of scenes: ``e`` [B, S, M], ``v`` [B, S, V], ``valid`` [B, S]; and ``audio``.

        With a residual also ``source_audio`` [B, S, A], from the means of e.
        """
        slots = self.slots(batch)
        if self.change_training_slots is not None:
            slots = self.change_training_slots(batch, slots)
        e, v, valid = self.filled(slots).tokens(draws=int(self.source_embedding == "sample"))
        inputs = {"e": e, "v": v, "valid": valid, "audio": batch["audio"]}
        heard = self.source_audio(slots)
        return inputs if heard is None else inputs | {"source_audio": heard}

    def terms(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the terms of Eq. 9: ``cosine`` and ``kl``."""
        mixed = self.remixer(inputs["e"], inputs["v"], inputs["valid"], inputs.get("source_audio"))
        return cosine_losses(mixed, inputs["audio"], self.sampling, self.kl_weight)

    # ---------------------------------------------------------------- scenes to tokens

    def slots(self, batch: Batch) -> SourceSlots:
        """Makes the slots of a batch of scenes: the global embedding, if it is used, then the sources.

        Args:
            batch: ``sources`` [B, S, V], ``valid`` [B, S], ``global_visual`` [B, V].
        """
        room = self.remixer.options.max_slots - self.use_global
        sources, valid = batch["sources"][:, :room], batch["valid"][:, :room]
        if batch["valid"].shape[1] > room:
            # One text for all batches, so that it is shown once.
            rank_zero_warn(
                f"model.remixer.max_slots leaves room for {room} sources; of scenes with more, the first are mixed"
            )
        parts = [visual_slots(sources, valid, self._project("sources"))]
        if self.use_global:
            there = torch.ones_like(valid[:, :1])
            global_visual = batch["global_visual"].unsqueeze(1)
            parts.insert(0, visual_slots(global_visual, there, self._project("global_visual"), weight=0.0))
        return join_slots(parts)

    @torch.no_grad()
    def source_audio(self, slots: SourceSlots) -> Tensor | None:
        """Computes what the Remixer's residual starts from, [B, S, A] (see ``source_slots``); None without one.

        Args:
            slots: of B scenes, before :meth:`filled`: slots of nothing are no sources.
        """
        if self.remixer.options.residual == "none":
            return None
        with torch.autocast(slots.visual.device.type, enabled=False):
            return source_audio(slots, self.manifold)

    def filled(
        self, slots: SourceSlots, composed: Tensor | None = None, cycle_mix: CycleMixOptions | None = None
    ) -> SourceSlots:
        """Returns the slots as the Remixer takes them: with ``mask_padding=False`` those without a source hold υ(0).

        They are no sources, and count in Cycle Mix's score by the published standard deviation alone.

        Args:
            slots: of B scenes.
            composed: which scenes show no one picture, bool [B]: their empty slots hold e = 0, as published.
            cycle_mix: options that the score is computed by; None: the module's.
        """
        options = self.remixer.options
        if options.mask_padding:
            return slots
        weight = float((cycle_mix or self.cycle_mix).score == "std")
        filled = fill_slots(slots, options.max_slots, self._project_visual, weight)
        if composed is None or not composed.any():
            return filled
        zeros = fill_slots(slots, options.max_slots, zero_projection(self.manifold.options.width), weight).cmss
        picked = composed.to(slots.valid.device).view(-1, 1, 1)
        mean = torch.where(picked, zeros.mean, filled.cmss.mean)
        log_variance = torch.where(picked, zeros.log_variance, filled.cmss.log_variance)
        return replace(filled, cmss=DiagonalGaussian(mean, log_variance))

    def _project(self, field: str) -> Callable[[Tensor], DiagonalGaussian]:
        """Finds υ for the embeddings of a field: looked up while fitting, where each row has one embedding."""
        if self._projections is None or field in self._fields_with_views():
            return self._project_visual
        return self._projections

    @torch.no_grad()
    def _project_visual(self, visual: Tensor) -> DiagonalGaussian:
        with torch.autocast(visual.device.type, enabled=False):
            return self.manifold.project_visual(visual.float())

    def _fields_with_views(self) -> list[str]:
        """Lists fields of which training draws another view each time."""
        fields = self.data.manifest.fields
        return [name for name in SOURCE_FIELDS if fields[name].views is not None]

    def _embeddings_of_the_data(self) -> Iterator[Tensor]:
        """Collects all different things seen while fitting, in parts of [N, V]."""
        data = self.data
        fields = [name for name in SOURCE_FIELDS if name not in self._fields_with_views()]
        for loader in (data.training_rows_loader(every_row=True), data.val_dataloader()):
            for batch in loader:
                if "sources" in fields:
                    yield batch["sources"][batch["valid"]].to(self.device)
                if "global_visual" in fields:
                    yield batch["global_visual"].to(self.device)

    # ---------------------------------------------------------------- evaluation

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measures a batch of scenes; returns what figures are drawn from.

        ``attention`` [B, S] is what [cls] takes of each slot, ``history`` [B, T] Cycle Mix's best score so far.
        """
        targets = targets_of(batch)
        if len(targets) == 0:
            return {}
        slots = self.slots(batch)
        tokens = self.filled(slots).tokens()
        mixed = self.remixer(*tokens, self.source_audio(slots))
        draws = [keyed_draw(mixed, seed, batch["key"]) for seed in (0, 1)]
        predictions = {OWN: mixed.mean, "draw": draws[0]}
        attention = self.remixer.attention_weights(*tokens)[:, : slots.valid.shape[1]]
        shown = {"attention": attention.masked_fill(~slots.valid, 0)}
        if self.validate_cycle_mix:
            result = self.mix_in_cycles(batch, slots)
            predictions["cycle_mix"], shown["history"] = result.embedding, result.history

        def baselines(targets: Targets, statistics: TrainingStatistics) -> dict[str, Tensor]:
            of_global = self._project_visual(batch["global_visual"])
            return untrained_predictions(targets, statistics) | manifold_predictions(slots, of_global, self.manifold)

        self.add_predictions(targets, predictions, baselines)
        self.validation.extra["draw_cosine"].update(*draws)
        return shown

    @property
    def samplings(self) -> Sequence[str]:
        """The mean of the Remixer's Gaussian, one draw, or Cycle Mix."""
        return ("mean", "draw", "cycle_mix")

    def predict_embeddings(self, batch: Batch, prediction: Prediction) -> Tensor:
        """Predicts the audio embedding of each scene, unit vectors [B, A]; see :class:`StageModule`."""
        slots = self.slots(batch)
        if prediction.sampling == "cycle_mix":
            return self.mix_in_cycles(batch, slots, prediction.seed).embedding
        if prediction.sampling == "draw":
            return self.draw(batch, slots, prediction.seed)
        return normalize(self.mix(slots).mean.float(), dim=-1)

    def mix(self, slots: SourceSlots, composed: Tensor | None = None) -> DiagonalGaussian:
        """Mixes scenes of an evaluation batch: the Gaussian of their audio embeddings, [B, A], from the means of e."""
        return self.remixer(*self.filled(slots, composed).tokens(), self.source_audio(slots))

    def draw(self, batch: Batch, slots: SourceSlots, seed: int = 0) -> Tensor:
        """Draws once for each scene of an evaluation batch, unit vectors [B, A]; arguments of :meth:`mix_in_cycles`."""
        return keyed_draw(self.mix(slots), seed, batch["key"])

    def mix_in_cycles(
        self,
        batch: Batch,
        slots: SourceSlots,
        seed: int = 0,
        composed: Tensor | None = None,
        options: CycleMixOptions | None = None,
    ) -> CycleMixResult:
        """Mixes the scenes of an evaluation batch by Algorithm 1.

        Args:
            batch: has the ``key`` of each scene, which seeds its noise.
            slots: of the batch.
            seed: changes the noise of all scenes.
            composed: see :meth:`filled`.
            options: of Cycle Mix; None: ``cycle_mix``.
        """
        filled = self.filled(slots, composed, options)
        return cycle_mix(
            self.remixer,
            self.manifold.eval(),
            *filled.tokens(),
            batch["key"],
            options=options or self.cycle_mix,
            seed=seed,
            slot_weights=filled.weight,
            source_audio=self.source_audio(slots),
        )


def manifold_predictions(slots: SourceSlots, global_cmss: DiagonalGaussian, manifold: Manifold) -> dict[str, Tensor]:
    """Predicts by the manifold alone, [scenes, audio width] each: the mean of χ(e_m), and χ of the global e."""
    return {
        "source_mean": mean_of_sources(slots, manifold),
        "global": manifold.reconstruct_audio(global_cmss.mean).mean,
    }
