"""Training of the audio-to-visual translator, the Wav2CLIP that the paper's section 8.2 wishes for."""

from collections.abc import Sequence
from typing import ClassVar

from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.losses import contrastive_loss, cosine_distance_loss
from lightning_ss2a.metrics.names import OWN
from lightning_ss2a.models import AudioToVisual
from lightning_ss2a.models.audio_to_visual import HIDDEN_WIDTHS
from lightning_ss2a.training.checks import arguments_of_the_model
from lightning_ss2a.training.optimization import Schedule
from lightning_ss2a.training.stage import StageModule
from lightning_ss2a.training.validation.container import EpochMetrics
from lightning_ss2a.training.validation.targets import targets_of
from lightning_ss2a.training.validation.translations import translation_baselines, translation_metrics


class AudioToVisualModule(StageModule):
    """Learns a map from audio to visual embeddings from pairs, with a contrastive loss and a cosine loss.

    The contrastive loss compares unit vectors with the mean training embedding taken off: visual embeddings lie in a
    narrow cone, and to tell them apart as they are would push translations out of it.

    Its checkpoint serves as ``translator_checkpoint`` of the other modules, for their CLIP score, and gives sources of
    audio a visual embedding (``models.source_slots.audio_slots``).

    Args:
        visual_width: width of the visual embeddings; linked from the data's manifest.
        audio_width: width of the audio embeddings; linked from the data's manifest.
        hidden_widths: layers of the translator.
        input_scaling: bring inputs to unit variance a coordinate.
        dropout: dropout probability.
        contrastive_weight: weight of the contrastive loss of translated audio and visual embeddings, both ways.
        cosine_weight: weight of the cosine distance.
        ccmr_alpha: alpha of the CCMR mask in the contrastive loss, Eq. 7; 0 switches the mask off.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay of the weight matrices.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: learning rate after the warm-up; ``cosine`` follows the part of ``max_epochs`` that is done.
        compile_model: compile the network with ``torch.compile``, for training.
    """

    DATA: ClassVar = {"pairs": {"visual_width": "visual", "audio_width": "audio"}}

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        hidden_widths: Sequence[int] = HIDDEN_WIDTHS,
        input_scaling: bool = True,
        dropout: float = 0.2,
        contrastive_weight: float = 1.0,
        cosine_weight: float = 1.0,
        ccmr_alpha: float = 0.0,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        compile_model: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_hyperparameters()
        if contrastive_weight == cosine_weight == 0:
            raise InputError("model.contrastive_weight and model.cosine_weight are both 0: there is nothing to learn")
        with arguments_of_the_model():
            self.translator = AudioToVisual(
                audio_width, visual_width, list(hidden_widths), dropout=dropout, input_scaling=input_scaling
            )
        # DistributedDataParallel would wait for the gradient of a parameter that no loss has.
        self.translator.log_temperature.requires_grad_(contrastive_weight > 0)

    @property
    def network(self) -> nn.Module:
        """The translator."""
        return self.translator

    def build_validation(self, data: LightningDataModule) -> EpochMetrics[Tensor]:
        """Metrics of translated audio embeddings."""
        return translation_metrics()

    def on_fit_start(self) -> None:
        """Get ready to measure, and give translations the length of the visual embeddings."""
        super().on_fit_start()
        self.translator.visual_norm.copy_(self.statistics.visual_norm)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``contrastive`` and ``cosine``, those of weight 0 left out."""
        visual, audio = batch["visual"], batch["audio"]
        translated = self.translator(audio)
        terms = {}
        if self.hparams.contrastive_weight:
            mean = self.statistics.mean_visual
            terms["contrastive"] = contrastive_loss(
                normalize(visual, dim=-1) - mean,
                normalize(translated.float(), dim=-1) - mean,
                self.translator.temperature,
                visual=visual,
                audio=audio,
                ccmr_alpha=self.hparams.ccmr_alpha,
                mask_diagonal=False,
            )
        if self.hparams.cosine_weight:
            terms["cosine"] = cosine_distance_loss(translated, visual)
        return {"loss": sum(self.hparams[f"{name}_weight"] * term for name, term in terms.items())} | terms

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measure a batch of pairs."""
        targets = targets_of(batch)
        if len(targets):
            self.validation.update(
                targets,
                {OWN: normalize(self.translator(batch["audio"]).float(), dim=-1)},
                lambda: translation_baselines(targets, self.statistics),
                self.statistics,
                self._label_head,
            )
        return {}
