"""Metrics of predicted audio embeddings: SSMS, CLIP score and reconstruction cosine, also by number of sources."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics import Metric

from lightning_ss2a.metric_names import OWN
from lightning_ss2a.metrics import CLIPScore, MeanCosine, SoundSourceMatchingScore
from lightning_ss2a.training.validation.baselines import TrainingStatistics
from lightning_ss2a.training.validation.container import EpochMetrics, LabelScorer, MetricSet
from lightning_ss2a.training.validation.targets import Targets

MOST_SOURCES = 5
SOURCE_GROUPS = (*(f"sources_{n}" for n in range(1, MOST_SOURCES)), f"sources_{MOST_SOURCES}_or_more")
"""Groups of rows by what is seen in them."""

SPLITS = ("single", "several")
"""Rows in which one thing is seen, and those in which two or more are, as the paper's tables have them."""


class PredictedAudioMetrics(nn.Module):
    """SSMS, CLIP score and reconstruction cosine of predicted audio embeddings.

    A prediction is a direction. It is given the mean norm of the training audio before the label head sees it, since
    a head with a bias weighs its input against that bias; the true audio keeps its own norm.

    Args:
        top_n: labels a side that SSMS compares.
        num_groups: groups of rows, for SSMS by group (by class; by number of sources); None: no breakdown.
        with_ssms: False where the data set has no label head.
        with_clip_score: False where the data have no visual embeddings.
    """

    def __init__(self, top_n: int, num_groups: int | None, with_ssms: bool, with_clip_score: bool = True) -> None:
        super().__init__()
        self.ssms = SoundSourceMatchingScore(top_n=top_n, num_classes=num_groups) if with_ssms else None
        self.clip_score = CLIPScore() if with_clip_score else None
        self.reconstruction_cosine = MeanCosine()

    def update(
        self,
        predicted: Tensor,
        targets: Targets,
        statistics: TrainingStatistics,
        head: LabelScorer | None,
        group: Tensor | None = None,
    ) -> None:
        """Adds predictions [rows, audio width] for a batch, with the group of each row, [rows]."""
        direction = normalize(predicted.float(), dim=-1)
        if self.ssms is not None and head is not None:
            with torch.autocast(direction.device.type, enabled=False):
                scores = head.scores(direction * statistics.audio_norm), head.scores(targets.audio)
            self.ssms.update(*scores, group)
        if self.clip_score is not None and targets.visual is not None:
            self.clip_score.update(statistics.translate_audio(direction), targets.visual, targets.visible)
        self.reconstruction_cosine.update(direction, targets.audio)

    def compute(self) -> dict[str, Tensor]:
        """Computes the values by metric name; a collective call, so every rank has to make it."""
        values = {} if self.ssms is None else {"ssms": self.ssms.compute()}
        if self.clip_score is not None:
            values["clip_score"] = self.clip_score.compute()
        return values | {"reconstruction_cosine": self.reconstruction_cosine.compute()}

    def ssms_per_group(self) -> Tensor | None:
        """Computes SSMS of each group; see :meth:`MetricSet.ssms_per_group`."""
        if self.ssms is None or self.ssms.num_classes is None:
            return None
        return self.ssms.per_class().cpu()


class BySources(MetricSet[Tensor]):
    """Metrics of predicted audio embeddings, over all rows and apart for rows of one source and of several.

    SSMS and reconstruction cosine are also ``METRIC/single`` and ``METRIC/several``, where the data have both.

    Args:
        top_n: labels a side that SSMS compares.
        with_ssms: False where the data set has no label head.
        with_clip_score: False where the data have no visual embeddings.
    """

    group_names = SOURCE_GROUPS

    def __init__(self, top_n: int, with_ssms: bool, with_clip_score: bool) -> None:
        super().__init__()
        self.all = PredictedAudioMetrics(top_n, len(SOURCE_GROUPS), with_ssms, with_clip_score)
        self.single, self.several = (PredictedAudioMetrics(top_n, None, with_ssms, False) for _ in SPLITS)

    def update(
        self, prediction: Tensor, targets: Targets, statistics: TrainingStatistics, head: LabelScorer | None
    ) -> None:
        """Adds predictions [rows, audio width] for a batch."""
        group = targets.visible.sum(1).clamp(1, MOST_SOURCES) - 1
        self.all.update(prediction, targets, statistics, head, group)
        for metrics, rows in ((self.single, group == 0), (self.several, group > 0)):
            metrics.update(prediction[rows], targets[rows], statistics, head)

    def compute(self) -> dict[str, Tensor]:
        """Computes the values by metric name; a collective call, so every rank has to make it."""
        parts = dict(zip(SPLITS, (self.single.compute(), self.several.compute()), strict=True))
        values = self.all.compute()
        if any(part["reconstruction_cosine"].isnan() for part in parts.values()):  # one of them has no rows
            return values
        return values | {f"{metric}/{name}": value for name, part in parts.items() for metric, value in part.items()}

    def ssms_per_group(self) -> Tensor | None:
        """Computes SSMS of each group of :data:`SOURCE_GROUPS`."""
        return self.all.ssms_per_group()


def audio_metrics(
    top_n: int,
    with_ssms: bool,
    with_clip_score: bool,
    variants: Sequence[str] = (),
    baselines: Sequence[str] = (),
    extra: Mapping[str, Metric] | None = None,
) -> EpochMetrics[Tensor]:
    """Makes the metrics of a stage that predicts audio embeddings.

    Args:
        top_n: labels a side that SSMS compares.
        with_ssms: False where the data set has no label head.
        with_clip_score: False where the data have no visual embeddings.
        variants: names of the other ways to predict.
        baselines: names of the baselines.
        extra: see :class:`EpochMetrics`.
    """

    def sets(names: Sequence[str]) -> dict[str, BySources]:
        return {name: BySources(top_n, with_ssms, with_clip_score) for name in names}

    return EpochMetrics(sets([OWN, *variants]), sets(baselines), extra)
