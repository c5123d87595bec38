"""Training of Temporal Aggregation: |1 - cos(a, w(pos(a_1 .. a_64, t)))| + kl_weight * L_kl (paper, Eq. 10-12)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.callbacks.protocols import Prediction
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.format.schema import FRAMES_PER_VIDEO
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.losses import cosine_distance_loss
from lightning_ss2a.metric_names import OWN
from lightning_ss2a.models import (
    LinearAggregator,
    TemporalAggregator,
    TemporalAggregatorOptions,
    mean_over_frames,
)
from lightning_ss2a.models.layers.keyed_noise import keyed_draw
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.training.base import StageModule
from lightning_ss2a.training.checks import check_width, warn_without_effect
from lightning_ss2a.training.optimization import OptimizationOptions, build_adamw
from lightning_ss2a.training.step import Step
from lightning_ss2a.training.validation.baselines import BASELINES, TrainingStatistics, untrained_predictions
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.measuring import MeasuringOptions
from lightning_ss2a.training.validation.predicted_audio import audio_metrics
from lightning_ss2a.training.validation.targets import Targets, targets_of
from lightning_ss2a.training.variational import SamplingOptions, cosine_losses

Flavour = Literal["attention", "linear", "mean", "middle"]


class TemporalAggregationModule(StageModule):
    """Learns to fuse the audio embeddings generated for the frames of a video into one.

    Data are videos whose frames are generated audio embeddings, as ``ss2a shards frames`` writes them. The mean over
    frames stands beside every number as the baseline ``frame_mean``; ``flavour: linear`` trains V2A-Mapper's rival.
    ``mean`` and ``middle`` are that rival untrained, for comparisons in one table: the mean over frames, and the middle
    frame alone, which knows nothing of time. They learn nothing, at a learning rate of 0.

    Args:
        audio_width: width of the audio embeddings and of the frames; linked from the data's manifest.
        flavour: ``attention``, the paper's; ``linear``, a learned weight for each frame; ``mean`` or ``middle``.
        aggregator: architecture of the attention; the released weights have an ``expansion`` of 2.
        sampling: what the loss sees of the Gaussian.
        kl_weight: weight of the KL divergence, at least 0; Eq. 10 shows none, the released trainer takes 1e-3.
        optimization: the optimiser.
        step: ``eager``; ``compiled``: gradients by functions that ``torch.compile`` makes; ``graph``: these, captured
            as CUDA graphs and replayed.
        measuring: the metrics of validation and test; the CLIP score where the videos have a field ``visual``.
    """

    DATA: ClassVar = {"videos": None}
    measuring: MeasuringOptions

    def __init__(
        self,
        audio_width: int,
        flavour: Flavour = "attention",
        aggregator: TemporalAggregatorOptions = TemporalAggregatorOptions(),
        sampling: SamplingOptions = SamplingOptions(),
        kl_weight: float = 1e-3,
        optimization: OptimizationOptions = OptimizationOptions(),
        step: Step = "eager",
        measuring: MeasuringOptions = MeasuringOptions(),
    ) -> None:
        super().__init__(locals(), audio_width, None, optimization, step, measuring)
        check = OptionCheck("model")
        check.one_of(get_args(Flavour), flavour=flavour)
        check.at_least(0, kl_weight=kl_weight)
        self.flavour, self.sampling, self.kl_weight = flavour, sampling, kl_weight
        self.aggregator: TemporalAggregator | LinearAggregator
        if flavour == "attention":
            self.aggregator = TemporalAggregator(audio_width, aggregator, FRAMES_PER_VIDEO)
        else:
            self.aggregator = LinearAggregator(FRAMES_PER_VIDEO, "middle" if flavour == "middle" else "mean")
            usual, drawn = TemporalAggregatorOptions(), SamplingOptions()
            warn_without_effect(  # sizes apart, since one config gives them to all flavours
                f"model.flavour={flavour}",
                ("aggregator.input_scaling", aggregator.input_scaling, usual.input_scaling),
                ("aggregator.unit_mean", aggregator.unit_mean, usual.unit_mean),
                ("aggregator.initial_log_variance", aggregator.initial_log_variance, usual.initial_log_variance),
                ("aggregator.variant", aggregator.variant, usual.variant),
                ("sampling.embedding", sampling.embedding, drawn.embedding),
                ("sampling.draws", sampling.draws, drawn.draws),
            )

    @property
    def architecture_options(self) -> dict[str, Any]:
        """Options that the weights depend on, beside the widths."""
        if isinstance(self.aggregator, LinearAggregator):
            return {"flavour": self.flavour}
        return {"flavour": self.flavour, "aggregator": self.aggregator.options.architecture()}

    @property
    def network(self) -> nn.Module:
        """The aggregator."""
        return self.aggregator

    def check_data(self, data: ShardDataModule) -> None:
        """Refuses data that the model was not made for.

        Raises:
            InputError: as for every module, or frames are no audio embeddings.
        """
        super().check_data(data)
        if data.manifest.fields["frames"].role != "audio":
            raise InputError(
                f"{data.datasets[0]}: its frames are not audio embeddings; make them with `ss2a shards frames "
                f"{data.datasets[0]} OUTPUT REMIXER.ckpt`"
            )
        check_width(data, "frames", audio_width=self.audio_width)

    def build_validation(self, data: ShardDataModule) -> EpochMetrics[Tensor]:
        """Makes the metrics of aggregated audio embeddings."""
        seen = "visual" in data.manifest.fields
        baselines = [*BASELINES, "frame_mean"]
        return audio_metrics(self.measuring.top_n, data.label_head is not None, seen, baselines=baselines)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """See :class:`StageModule`; what learns nothing has a learning rate of 0, so that any strategy can run it."""
        if self.flavour in ("attention", "linear"):
            return super().configure_optimizers()
        nothing = OptimizationOptions(learning_rate=0.0, weight_decay=0.0)
        return build_adamw(self.network.parameters(), nothing, flat=self.step != "eager")

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Takes ``frames`` [B, 64, A], ``timestamps`` [B, 64] and ``audio`` [B, A]."""
        return {name: batch[name] for name in ("frames", "timestamps", "audio")}

    def terms(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the terms of Eq. 10: ``cosine`` and, of the variational aggregator, ``kl``."""
        fused = self.aggregator(inputs["frames"], inputs["timestamps"])
        if isinstance(self.aggregator, LinearAggregator):
            cosine = cosine_distance_loss(fused, inputs["audio"])
            return {"loss": cosine, "cosine": cosine}
        return cosine_losses(fused, inputs["audio"], self.sampling, self.kl_weight)

    def predict_audio(self, batch: Batch) -> Tensor:
        """Predicts the audio embedding of each video, the mean of its Gaussian, [videos, audio width]."""
        fused = self.aggregator(batch["frames"], batch["timestamps"])
        return fused if isinstance(self.aggregator, LinearAggregator) else fused.mean

    @property
    def samplings(self) -> Sequence[str]:
        """The mean; of the attention's Gaussian one draw, too."""
        return ("mean",) if isinstance(self.aggregator, LinearAggregator) else ("mean", "draw")

    def predict_embeddings(self, batch: Batch, prediction: Prediction) -> Tensor:
        """Predicts the audio embedding of each video, unit vectors [videos, A]; see :class:`StageModule`."""
        if prediction.sampling == "draw":
            return keyed_draw(self.aggregator(batch["frames"], batch["timestamps"]), prediction.seed, batch["key"])
        return normalize(self.predict_audio(batch).float(), dim=-1)

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measures a batch of videos."""
        targets = targets_of(batch)

        def baselines(targets: Targets, statistics: TrainingStatistics) -> dict[str, Tensor]:
            return untrained_predictions(targets, statistics) | {"frame_mean": mean_over_frames(batch["frames"])}

        if len(targets):
            self.add_predictions(targets, {OWN: self.predict_audio(batch)}, baselines)
        return {}
