"""Training of Temporal Aggregation: |1 - cos(a, w(pos(a_1 .. a_64, t)))| + kl_weight * L_kl (paper, Eq. 10-12)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from lightning_ss2a.data.format.schema import FRAMES_PER_VIDEO
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.losses import cosine_distance_loss
from lightning_ss2a.metrics.names import OWN
from lightning_ss2a.models import LinearAggregator, TemporalAggregator, mean_over_frames
from lightning_ss2a.models.layers.attentive_readout import HEAD_WIDTHS
from lightning_ss2a.models.layers.variational_mlp import Variant
from lightning_ss2a.training.checks import arguments_of_the_model, check_widths
from lightning_ss2a.training.optimization import Schedule, build_adamw
from lightning_ss2a.training.stage import StageModule
from lightning_ss2a.training.validation.baselines import BASELINES, untrained_predictions
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.predicted_audio import audio_metrics
from lightning_ss2a.training.validation.targets import targets_of
from lightning_ss2a.training.variational import cosine_losses


class TemporalAggregationModule(StageModule):
    """Learns to fuse the audio embeddings generated for the frames of a video into one.

    Data are videos whose frames are generated audio embeddings, as ``ss2a shards frames`` writes them. The mean over
    frames stands beside every number as the floor ``frame_mean``; ``aggregator: linear`` trains V2A-Mapper's rival.
    ``mean`` and ``middle`` are that rival untrained, for comparisons in one table: the mean over frames, and the middle
    frame alone, which knows nothing of time. They learn nothing, at a learning rate of 0.

    Args:
        audio_width: width of the audio embeddings and of the frames; linked from the data's manifest.
        aggregator: ``attention``, the paper's; ``linear``, a learned weight for each frame; ``mean`` or ``middle``.
        width: width of the tokens.
        num_layers: attention blocks.
        num_heads: attention heads, a divisor of ``width``.
        head_widths: hidden layers of both heads.
        expansion: hidden width of a block's feed-forward network over ``width``; the released weights have 2.
        dropout: dropout probability.
        input_scaling: bring frames to unit variance a coordinate.
        unit_mean: L2-normalise the Gaussian's mean, so that training cannot shrink the noise beside it.
        initial_log_variance: log-variance that the variance head starts at.
        variant: layers and positions as in the paper or as in the released weights.
        embedding: what the loss sees of the Gaussian: a ``sample`` or its ``mean``.
        draws: samples averaged into one embedding, in closed form.
        kl_weight: weight of the KL divergence; Eq. 10 shows none, the released trainer takes 1e-3.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay of the weight matrices.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: learning rate after the warm-up; ``cosine`` follows the part of ``max_epochs`` that is done.
        compile_model: compile the network with ``torch.compile``, for training.
        top_n: labels a side that SSMS compares (N of the paper).
        translator_checkpoint: see ``RemixerModule``; used where the videos have a field ``visual``.
    """

    DATA: ClassVar = {"videos": {"audio_width": "audio"}}

    def __init__(
        self,
        audio_width: int,
        aggregator: Literal["attention", "linear", "mean", "middle"] = "attention",
        width: int = 768,
        num_layers: int = 1,
        num_heads: int = 8,
        head_widths: Sequence[int] = HEAD_WIDTHS,
        expansion: int = 1,
        dropout: float = 0.2,
        input_scaling: bool = True,
        unit_mean: bool = False,
        initial_log_variance: float = -4.0,
        variant: Variant = "paper",
        embedding: Literal["sample", "mean"] = "sample",
        draws: int = 1,
        kl_weight: float = 1e-3,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        compile_model: bool = False,
        top_n: int = 10,
        translator_checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_hyperparameters()
        with arguments_of_the_model():
            if aggregator != "attention":
                start = "middle" if aggregator == "middle" else "mean"
                self.aggregator = LinearAggregator(FRAMES_PER_VIDEO, start)
            else:
                self.aggregator = TemporalAggregator(
                    audio_width,
                    width=width,
                    num_layers=num_layers,
                    num_heads=num_heads,
                    head_widths=list(head_widths),
                    expansion=expansion,
                    dropout=dropout,
                    input_scaling=input_scaling,
                    unit_mean=unit_mean,
                    initial_log_variance=initial_log_variance,
                    variant=variant,
                    num_frames=FRAMES_PER_VIDEO,
                )

    @property
    def network(self) -> nn.Module:
        """The aggregator."""
        return self.aggregator

    def check_data(self, data: LightningDataModule) -> None:
        """Refuse data that the model was not made for.

        Raises:
            InputError: as for every module, or frames are no audio embeddings.
        """
        super().check_data(data)
        if data.manifest.fields["frames"].role != "audio":
            raise InputError(
                f"{data.datasets[0]}: its frames are not audio embeddings; make them with `ss2a shards frames "
                f"{data.datasets[0]} OUTPUT REMIXER.ckpt`"
            )
        check_widths(self.hparams, data, {"audio_width": "frames"})

    def build_validation(self, data: LightningDataModule) -> EpochMetrics[Tensor]:
        """Metrics of aggregated audio embeddings."""
        seen = "visual" in data.manifest.fields
        baselines = [*BASELINES, "frame_mean"]
        return audio_metrics(self.hparams.top_n, data.label_head is not None, seen, baselines=baselines)

    def without_effect(self) -> dict[tuple[str, ...], str]:
        """Options of the attention where there is none; those apart that one config gives to all aggregators."""
        if self.hparams.aggregator == "attention":
            return super().without_effect()
        options = ("input_scaling", "unit_mean", "initial_log_variance", "variant", "embedding", "draws")
        return {options: f"model.aggregator={self.hparams.aggregator}"}

    def configure_optimizers(self) -> dict[str, Any]:
        """See :class:`StageModule`; what learns nothing has a learning rate of 0, so that any strategy can run it."""
        if self.hparams.aggregator in ("attention", "linear"):
            return super().configure_optimizers()
        return {"optimizer": build_adamw(self.network.parameters(), 0.0, 0.0)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of Eq. 10: ``cosine`` and, of the variational aggregator, ``kl``."""
        fused = self.aggregator(batch["frames"], batch["timestamps"])
        if self.hparams.aggregator != "attention":
            cosine = cosine_distance_loss(fused, batch["audio"])
            return {"loss": cosine, "cosine": cosine}
        return cosine_losses(fused, batch["audio"], self.hparams)

    def predict_audio(self, batch: Batch) -> Tensor:
        """Audio embedding of each video, the mean of its Gaussian, [videos, audio width]."""
        fused = self.aggregator(batch["frames"], batch["timestamps"])
        return fused.mean if self.hparams.aggregator == "attention" else fused

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measure a batch of videos."""
        targets = targets_of(batch)
        if len(targets):

            def baselines() -> dict[str, Tensor]:
                return untrained_predictions(targets, self.statistics) | {
                    "frame_mean": mean_over_frames(batch["frames"])
                }

            predictions = {OWN: self.predict_audio(batch)}
            self.validation.update(targets, predictions, baselines, self.statistics, self._label_head)
        return {}
