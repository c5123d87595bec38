"""Training of the V2A-Mapper, the paper's main rival: a global visual embedding to one audio embedding."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.callbacks.protocols import Prediction
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.losses import cosine_distance_loss
from lightning_ss2a.metric_names import OWN
from lightning_ss2a.models import (
    DiffusionMapper,
    DiffusionMapperOptions,
    RegressionMapper,
    RegressionMapperOptions,
)
from lightning_ss2a.models.layers.keyed_noise import keyed_normal
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.training.base import StageModule
from lightning_ss2a.training.checks import warn_without_effect
from lightning_ss2a.training.optimization import OptimizationOptions
from lightning_ss2a.training.step import Step
from lightning_ss2a.training.validation.baselines import BASELINES, untrained_predictions
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.measuring import MeasuringOptions
from lightning_ss2a.training.validation.predicted_audio import audio_metrics
from lightning_ss2a.training.validation.targets import targets_of

Flavour = Literal["diffusion", "regression"]


class V2AMapperModule(StageModule):
    """Learns a mapper of Wang et al. (2024) from scenes (their global embedding) or pairs.

    ``diffusion`` is the generative mapper, a diffusion prior on audio embeddings; ``regression`` is a residual MLP,
    trained on the cosine distance, by which all stages are measured here (Wang et al. take the mean squared error).
    Validation takes one sample of a diffusion mapper for each row, from noise that is seeded by the row's key.

    Args:
        visual_width: width of the visual embeddings; linked from the data's manifest.
        audio_width: width of the audio embeddings; linked from the data's manifest.
        flavour: ``diffusion`` or ``regression``.
        regression: architecture of the regression mapper.
        diffusion: architecture of the diffusion mapper, and how it is sampled.
        optimization: the optimiser.
        step: ``eager``; ``compiled``: gradients by functions that ``torch.compile`` makes; ``graph``: these, captured
            as CUDA graphs and replayed.
        measuring: the metrics of validation and test.
    """

    DATA: ClassVar = {"scenes": "global_visual", "pairs": "visual"}
    measuring: MeasuringOptions

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        flavour: Flavour = "diffusion",
        regression: RegressionMapperOptions = RegressionMapperOptions(),
        diffusion: DiffusionMapperOptions = DiffusionMapperOptions(),
        optimization: OptimizationOptions = OptimizationOptions(),
        step: Step = "eager",
        measuring: MeasuringOptions = MeasuringOptions(),
    ) -> None:
        super().__init__(locals(), audio_width, visual_width, optimization, step, measuring)
        OptionCheck("model").one_of(get_args(Flavour), flavour=flavour)
        self.flavour = flavour
        self.mapper: RegressionMapper | DiffusionMapper
        if flavour == "regression":
            self.mapper = RegressionMapper(visual_width, audio_width, regression)
            usual = DiffusionMapperOptions()
            warn_without_effect(
                "model.flavour=regression",
                ("diffusion.train_steps", diffusion.train_steps, usual.train_steps),
                ("diffusion.condition_dropout", diffusion.condition_dropout, usual.condition_dropout),
                ("diffusion.guidance_scale", diffusion.guidance_scale, usual.guidance_scale),
            )
        else:
            self.mapper = DiffusionMapper(visual_width, audio_width, diffusion)

    @property
    def architecture_options(self) -> dict[str, Any]:
        """Options that the weights depend on, beside the widths."""
        return {"flavour": self.flavour, self.flavour: self.mapper.options.architecture()}

    @property
    def network(self) -> nn.Module:
        """The mapper."""
        return self.mapper

    def build_validation(self, data: ShardDataModule) -> EpochMetrics[Tensor]:
        """Makes the metrics of mapped audio embeddings."""
        return audio_metrics(self.measuring.top_n, data.label_head is not None, True, baselines=BASELINES)

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Takes ``visual`` [B, V], the one of each row, and ``audio`` [B, A]."""
        return {"visual": visual_of(batch), "audio": batch["audio"]}

    def terms(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes ``denoising`` of the diffusion mapper, or ``cosine`` of the regression mapper."""
        visual, audio = inputs["visual"], inputs["audio"]
        if isinstance(self.mapper, DiffusionMapper):
            denoising = self.mapper.denoising_loss(visual, audio)
            return {"loss": denoising, "denoising": denoising}
        cosine = cosine_distance_loss(self.mapper(visual), audio)
        return {"loss": cosine, "cosine": cosine}

    def predict_audio(self, batch: Batch, seed: int = 0) -> Tensor:
        """Predicts audio embeddings for an evaluation batch, [rows, audio width].

        Args:
            batch: has the ``key`` of each row, which seeds its noise.
            seed: changes the noise of all rows.
        """
        visual = visual_of(batch)
        if isinstance(self.mapper, RegressionMapper):
            return self.mapper(visual)
        return self.mapper.sample(visual, noise=keyed_normal(seed, batch["key"], self.audio_width, visual.device))

    @property
    def samplings(self) -> Sequence[str]:
        """What the flavour gives: a draw of the diffusion mapper, the one answer of the regression mapper."""
        return ("draw",) if isinstance(self.mapper, DiffusionMapper) else ("mean",)

    def predict_embeddings(self, batch: Batch, prediction: Prediction) -> Tensor:
        """Predicts the audio embedding of each row, unit vectors [rows, A]; see :class:`StageModule`."""
        return normalize(self.predict_audio(batch, prediction.seed).float(), dim=-1)

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measures a batch of scenes or pairs."""
        targets = targets_of(batch)
        if len(targets):
            self.add_predictions(targets, {OWN: self.predict_audio(batch)}, untrained_predictions)
        return {}


def visual_of(batch: Batch) -> Tensor:
    """Finds the one visual embedding of each row, [rows, visual width]."""
    return batch["global_visual"] if "global_visual" in batch else batch["visual"]
