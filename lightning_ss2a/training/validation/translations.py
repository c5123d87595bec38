"""Metrics of audio embeddings translated to visual ones: how near what is seen, and whether they find it."""

from torch import Tensor

from lightning_ss2a.metric_names import OWN
from lightning_ss2a.metrics import CrossModalRetrieval, MeanCosine
from lightning_ss2a.training.validation.baselines import TrainingStatistics
from lightning_ss2a.training.validation.container import EpochMetrics, LabelScorer, MetricSet
from lightning_ss2a.training.validation.pairs import RECALL_AT, chance_recall
from lightning_ss2a.training.validation.targets import Targets


class TranslationMetrics(MetricSet[Tensor]):
    """Mean cosine of translated audio and what is seen, and retrieval both ways.

    Retrieval takes the mean training embedding off both sides: what all pictures have in common tells none from
    another.

    Args:
        with_retrieval: False where all translations are alike.
    """

    def __init__(self, with_retrieval: bool = True) -> None:
        super().__init__()
        self.cosine = MeanCosine()
        self.retrieval = CrossModalRetrieval(ks=RECALL_AT) if with_retrieval else None

    def update(
        self, prediction: Tensor, targets: Targets, statistics: TrainingStatistics, head: LabelScorer | None = None
    ) -> None:
        """Adds translations [rows, visual width] of a batch."""
        visual, mean = targets.mean_visual, statistics.mean_visual
        if visual is None or mean is None:
            raise ValueError("translations need data with visual embeddings")
        self.cosine.update(prediction, visual)
        if self.retrieval is not None:
            self.retrieval.update(visual - mean, prediction - mean, targets.index)

    def compute(self) -> dict[str, Tensor]:
        """Computes the values by metric name; a collective call, so every rank has to make it."""
        retrieved = {} if self.retrieval is None else self.retrieval.compute()
        return {"translation_cosine": self.cosine.compute()} | retrieved

    def chance(self) -> dict[str, Tensor]:
        """States the recall of a random order."""
        return {} if self.retrieval is None else chance_recall(self.retrieval.rows)


def translation_metrics() -> EpochMetrics[Tensor]:
    """Makes the metrics of an audio-to-visual translator and its baselines."""
    baselines = {"ridge": TranslationMetrics(), "mean_visual": TranslationMetrics(with_retrieval=False)}
    return EpochMetrics({OWN: TranslationMetrics()}, baselines)


def translation_baselines(targets: Targets, statistics: TrainingStatistics) -> dict[str, Tensor]:
    """Translates without training: by the closed-form ridge regression, and to the mean training embedding."""
    ridge, mean, visual = statistics.translate_audio(targets.audio), statistics.mean_visual, targets.mean_visual
    if visual is None or mean is None:
        raise ValueError("translations need data with visual embeddings")
    return {"ridge": ridge, "mean_visual": mean.expand_as(visual)}
