"""Training of the V2A-Mapper, the paper's main rival: a global visual embedding to one audio embedding."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.losses import cosine_distance_loss
from lightning_ss2a.metrics.names import OWN
from lightning_ss2a.models import DiffusionMapper, RegressionMapper
from lightning_ss2a.models.layers.keyed_noise import keyed_normal
from lightning_ss2a.models.v2a_mapper import HIDDEN_WIDTHS
from lightning_ss2a.training.checks import arguments_of_the_model
from lightning_ss2a.training.optimization import Schedule
from lightning_ss2a.training.stage import StageModule
from lightning_ss2a.training.validation.baselines import BASELINES, untrained_predictions
from lightning_ss2a.training.validation.container import EpochMetrics
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
        hidden_widths: layers of the regression mapper.
        num_layers: transformer blocks of the diffusion mapper.
        num_heads: attention heads of the diffusion mapper.
        head_width: width of a head of the diffusion mapper.
        train_steps: noise levels of the diffusion mapper.
        sample_steps: denoising steps of a sample.
        condition_dropout: probability of hiding the visual embedding while training the diffusion mapper.
        guidance_scale: weight of classifier-free guidance in a sample; 1: none.
        dropout: dropout probability.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay of the weight matrices.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: learning rate after the warm-up; ``cosine`` follows the part of ``max_epochs`` that is done.
        compile_model: compile the network with ``torch.compile``, for training.
        top_n: labels a side that SSMS compares (N of the paper).
        translator_checkpoint: see ``RemixerModule``.
    """

    DATA: ClassVar = {
        "scenes": {"visual_width": "global_visual", "audio_width": "audio"},
        "pairs": {"visual_width": "visual", "audio_width": "audio"},
    }

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        flavour: Flavour = "diffusion",
        hidden_widths: Sequence[int] = HIDDEN_WIDTHS,
        num_layers: int = 12,
        num_heads: int = 9,
        head_width: int = 64,
        train_steps: int = 1000,
        sample_steps: int = 64,
        condition_dropout: float = 0.1,
        guidance_scale: float = 1.0,
        dropout: float = 0.0,
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
            if flavour == "regression":
                self.mapper = RegressionMapper(visual_width, audio_width, list(hidden_widths), dropout=dropout)
            else:
                self.mapper = DiffusionMapper(
                    visual_width,
                    audio_width,
                    num_layers=num_layers,
                    num_heads=num_heads,
                    head_width=head_width,
                    train_steps=train_steps,
                    sample_steps=sample_steps,
                    condition_dropout=condition_dropout,
                    guidance_scale=guidance_scale,
                    dropout=dropout,
                )

    @property
    def network(self) -> nn.Module:
        """The mapper."""
        return self.mapper

    def networks_to_compile(self) -> Sequence[nn.Module]:
        """The mapper, or the transformer in it that a diffusion mapper calls many times."""
        return [self.mapper.transformer if self.hparams.flavour == "diffusion" else self.mapper]

    def build_validation(self, data: LightningDataModule) -> EpochMetrics[Tensor]:
        """Metrics of mapped audio embeddings."""
        return audio_metrics(self.hparams.top_n, data.label_head is not None, True, baselines=BASELINES)

    def without_effect(self) -> dict[tuple[str, ...], str]:
        """Options of diffusion where there is none; sizes apart, since one config serves both flavours."""
        if self.hparams.flavour == "diffusion":
            return {}
        return {("train_steps", "condition_dropout", "guidance_scale"): "model.flavour=regression"}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``denoising`` of the diffusion mapper, or ``cosine`` of the regression mapper."""
        visual, audio = visual_of(batch), batch["audio"]
        if self.hparams.flavour == "diffusion":
            denoising = self.mapper.denoising_loss(visual, audio)
            return {"loss": denoising, "denoising": denoising}
        cosine = cosine_distance_loss(self.mapper(visual), audio)
        return {"loss": cosine, "cosine": cosine}

    def predict_audio(self, batch: Batch, seed: int = 0) -> Tensor:
        """Audio embeddings for an evaluation batch, [rows, audio width].

        Args:
            batch: has the ``key`` of each row, which seeds its noise.
            seed: changes the noise of all rows.
        """
        visual = visual_of(batch)
        if self.hparams.flavour == "regression":
            return self.mapper(visual)
        steps, width = self.hparams.sample_steps, self.hparams.audio_width
        noise = keyed_normal(seed, batch["key"], steps * width, visual.device)
        return self.mapper.sample(visual, noise=noise.unflatten(1, (steps, width)))

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measure a batch of scenes or pairs."""
        targets = targets_of(batch)
        if len(targets):
            self.validation.update(
                targets,
                {OWN: self.predict_audio(batch)},
                lambda: untrained_predictions(targets, self.statistics),
                self.statistics,
                self._label_head,
            )
        return {}


def visual_of(batch: Batch) -> Tensor:
    """The one visual embedding of each row, [rows, visual width]."""
    return batch["global_visual"] if "global_visual" in batch else batch["visual"]
