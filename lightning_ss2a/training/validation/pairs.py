"""Metrics of pairs in one space: those of the predicted audio, retrieval both ways and the modality gap."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.metric_names import OWN
from lightning_ss2a.metrics import CrossModalRetrieval, ModalityGap
from lightning_ss2a.training.validation.baselines import BASELINES, RIDGES, TrainingStatistics, untrained_predictions
from lightning_ss2a.training.validation.container import EpochMetrics, LabelScorer, MetricSet
from lightning_ss2a.training.validation.predicted_audio import PredictedAudioMetrics
from lightning_ss2a.training.validation.targets import Targets

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class PairPrediction:
    """What a manifold, or a baseline, gives for B pairs.

    Attributes:
        audio: audio embeddings predicted from sight, [B, audio width], any norm.
        visual_embedding: the visuals in a space shared with the audio, [B, width]; None: there is no such space.
        audio_embedding: the audio in it, [B, width].
        common: what all embeddings of the space have in common, [width], taken off both before retrieval, where it
            tells none from another and would drown what does; None: nothing is taken off.
    """

    audio: Tensor
    visual_embedding: Tensor | None = None
    audio_embedding: Tensor | None = None
    common: Tensor | None = None


class AlignmentMetrics(nn.Module):
    """Retrieval both ways and the modality gap of two embeddings in one space."""

    def __init__(self) -> None:
        super().__init__()
        self.retrieval = CrossModalRetrieval(ks=RECALL_AT)
        self.gap = ModalityGap()

    def update(
        self, visual_embedding: Tensor, audio_embedding: Tensor, index: Tensor, common: Tensor | None = None
    ) -> None:
        """Adds the embeddings [rows, width] of pairs.

        Args:
            visual_embedding: of the visuals.
            audio_embedding: of the audio.
            index: tells the order of the pairs, [rows].
            common: see :class:`PairPrediction`.
        """
        visual, audio = visual_embedding.float(), audio_embedding.float()
        self.gap.update(visual, audio)
        if common is not None:
            visual, audio = visual - common, audio - common
        self.retrieval.update(visual, audio, index)

    def compute(self) -> dict[str, Tensor]:
        """Computes the values by metric name; a collective call, so every rank has to make it."""
        return self.retrieval.compute() | {"modality_gap": self.gap.compute()}


class PairMetrics(MetricSet[PairPrediction]):
    """Metrics of one way to predict pairs.

    Args:
        top_n: labels a side that SSMS compares.
        num_classes: classes of the data set, for SSMS by class; None: no breakdown.
        with_ssms: False where the data set has no label head.
        with_alignment: False where there is no space that the modalities share.
    """

    def __init__(self, top_n: int, num_classes: int | None, with_ssms: bool, with_alignment: bool = True) -> None:
        super().__init__()
        self.predicted = PredictedAudioMetrics(top_n, num_classes, with_ssms)
        self.alignment = AlignmentMetrics() if with_alignment else None

    def update(
        self, prediction: PairPrediction, targets: Targets, statistics: TrainingStatistics, head: LabelScorer | None
    ) -> None:
        """Adds the prediction for a batch of pairs."""
        self.predicted.update(prediction.audio, targets, statistics, head, targets.class_index)
        visual, audio = prediction.visual_embedding, prediction.audio_embedding
        if self.alignment is not None and visual is not None and audio is not None:
            self.alignment.update(visual, audio, targets.index, prediction.common)

    def compute(self) -> dict[str, Tensor]:
        """Computes the values by metric name; a collective call, so every rank has to make it."""
        return self.predicted.compute() | ({} if self.alignment is None else self.alignment.compute())

    def chance(self) -> dict[str, Tensor]:
        """States recall and median rank of a random order."""
        if self.alignment is None:
            return {}
        rows = self.alignment.retrieval.rows
        return chance_recall(rows) | {f"median_rank/{way}": torch.tensor((rows + 1) / 2) for way in DIRECTIONS}

    def ssms_per_group(self) -> Tensor | None:
        """Computes SSMS of each class, [classes], NaN where the split has none; None without a label head."""
        return self.predicted.ssms_per_group()


DIRECTIONS = ("visual_to_audio", "audio_to_visual")


def chance_recall(rows: int) -> dict[str, Tensor]:
    """Computes the recall of a random order of so many candidates, by metric name."""
    return {f"recall@{k}/{way}": torch.tensor(min(1.0, k / rows)) for way in DIRECTIONS for k in RECALL_AT}


def pair_metrics(top_n: int, num_classes: int | None, with_ssms: bool) -> EpochMetrics[PairPrediction]:
    """Makes the metrics of a manifold and its baselines; see :class:`PairMetrics` for the arguments.

    The mean audio ranks the candidates in one order for every query, so its retrieval is chance; a modality gap needs
    both modalities in one space, which only ridge gives without training.
    """
    baselines = {name: PairMetrics(top_n, None, with_ssms, with_alignment=name in RIDGES) for name in BASELINES}
    return EpochMetrics({OWN: PairMetrics(top_n, num_classes, with_ssms)}, baselines)


def pair_baselines(targets: Targets, statistics: TrainingStatistics) -> dict[str, PairPrediction]:
    """Predicts pairs without training; ridge regression is in the space of the audio, the others in none."""
    audio = untrained_predictions(targets, statistics)
    return {
        name: in_audio_space(x, targets, statistics) if name in RIDGES else PairPrediction(x)
        for name, x in audio.items()
    }


def in_audio_space(audio: Tensor, targets: Targets, statistics: TrainingStatistics) -> PairPrediction:
    """Lets predicted audio, [B, audio width], seek the true audio: the space that both share is that of the audio."""
    return PairPrediction(audio, audio, normalize(targets.audio, dim=-1), statistics.mean_audio)
