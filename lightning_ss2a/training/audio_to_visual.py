"""Training of the audio-to-visual translator, the Wav2CLIP that the paper's section 8.2 wishes for."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.callbacks.protocols import Prediction
from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.losses import ContrastiveOptions, contrastive_loss, cosine_distance_loss
from lightning_ss2a.metric_names import OWN
from lightning_ss2a.models import AudioToVisual, AudioToVisualOptions
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.training.base import StageModule
from lightning_ss2a.training.optimization import OptimizationOptions
from lightning_ss2a.training.step import Step
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
        translator: architecture of the translator.
        contrastive_weight: weight of the contrastive loss of translated audio and visual embeddings, both ways.
        cosine_weight: weight of the cosine distance.
        contrastive: the contrastive loss.
        optimization: the optimiser.
        step: ``eager``; ``compiled``: gradients by functions that ``torch.compile`` makes; ``graph``: these, captured
            as CUDA graphs and replayed.
    """

    DATA: ClassVar = {"pairs": "visual"}
    PREDICTS: ClassVar = "visual"

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        translator: AudioToVisualOptions = AudioToVisualOptions(),
        contrastive_weight: float = 1.0,
        cosine_weight: float = 1.0,
        contrastive: ContrastiveOptions = ContrastiveOptions(ccmr_alpha=0.0, ccmr_mask_diagonal=False),
        optimization: OptimizationOptions = OptimizationOptions(),
        step: Step = "eager",
    ) -> None:
        super().__init__(locals(), audio_width, visual_width, optimization, step)
        OptionCheck("model").at_least(0, contrastive_weight=contrastive_weight, cosine_weight=cosine_weight)
        if contrastive_weight == cosine_weight == 0:
            raise InputError("model.contrastive_weight and model.cosine_weight are both 0: there is nothing to learn")
        self.contrastive, self.contrastive_weight, self.cosine_weight = contrastive, contrastive_weight, cosine_weight
        self.translator = AudioToVisual(audio_width, visual_width, translator)
        # DistributedDataParallel would wait for the gradient of a parameter that no loss has.
        self.translator.log_temperature.requires_grad_(contrastive_weight > 0)

    @property
    def architecture_options(self) -> dict[str, Any]:
        """Options that the weights depend on, beside the widths."""
        return {"translator": self.translator.options.architecture()}

    @property
    def network(self) -> nn.Module:
        """The translator."""
        return self.translator

    def build_validation(self, data: ShardDataModule) -> EpochMetrics[Tensor]:
        """Makes the metrics of translated audio embeddings."""
        return translation_metrics()

    def on_fit_start(self) -> None:
        """Gets ready to measure, and gives translations the length of the visual embeddings."""
        super().on_fit_start()
        norm = self.statistics.visual_norm
        assert norm is not None  # pairs have visual embeddings
        self.translator.visual_norm.copy_(norm)

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Takes ``visual`` [B, V] and ``audio`` [B, A], and adds ``mean_visual`` [V] of the training split."""
        mean = self.statistics.mean_visual
        assert mean is not None  # pairs have visual embeddings
        return {"visual": batch["visual"], "audio": batch["audio"], "mean_visual": mean}

    def terms(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes ``contrastive`` and ``cosine``, those of weight 0 left out."""
        visual, audio, mean = inputs["visual"], inputs["audio"], inputs["mean_visual"]
        translated = self.translator(audio)
        terms = {}
        loss = torch.zeros((), device=audio.device)
        if self.contrastive_weight:
            terms["contrastive"] = contrastive_loss(
                normalize(visual, dim=-1) - mean,
                normalize(translated.float(), dim=-1) - mean,
                self.translator.temperature,
                visual=visual,
                audio=audio,
                options=self.contrastive,
            )
            loss = loss + self.contrastive_weight * terms["contrastive"]
        if self.cosine_weight:
            terms["cosine"] = cosine_distance_loss(translated, visual)
            loss = loss + self.cosine_weight * terms["cosine"]
        return {"loss": loss} | terms

    def predict_embeddings(self, batch: Batch, prediction: Prediction) -> Tensor:
        """Predicts what each sound looks like, [rows, V], of the norm of the training visuals."""
        visual: Tensor = self.translator(batch["audio"])
        return visual

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Measures a batch of pairs."""
        targets = targets_of(batch)
        if len(targets):
            own = normalize(self.translator(batch["audio"]).float(), dim=-1)
            self.add_predictions(targets, {OWN: own}, translation_baselines)
        return {}
