"""The numbers of a stage that predicts audio embeddings, with what else could predict them beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ss2a.metrics import MeanCosine
from lightning_ss2a.training.validation.baselines import TrainingStatistics
from lightning_ss2a.training.validation.manifold import LabelScorer, PredictedAudioMetrics, reset_metrics
from lightning_ss2a.training.validation.targets import Targets

MOST_SOURCES = 5
SOURCE_GROUPS = (*(f"sources_{n}" for n in range(1, MOST_SOURCES)), f"sources_{MOST_SOURCES}_or_more")
"""Groups of rows by what is seen in them."""

SPLITS = ("single", "several")
"""Rows in which one thing is seen, and those in which two or more are, as the paper's tables have them."""

OWN = "prediction"


class BySources(nn.Module):
    """Numbers of one way to predict, over all rows and apart for rows of one source and of several.

    SSMS and reconstruction cosine are also ``METRIC/single`` and ``METRIC/several``, where the data have both.

    Args:
        top_n: labels a side that SSMS compares.
        with_ssms: False where the data set has no label head.
        with_clip_score: False where the data have no visual embeddings.
    """

    def __init__(self, top_n: int, with_ssms: bool, with_clip_score: bool) -> None:
        super().__init__()
        self.all = PredictedAudioMetrics(top_n, len(SOURCE_GROUPS), with_ssms, with_clip_score)
        self.parts = nn.ModuleDict(
            {name: PredictedAudioMetrics(top_n, None, with_ssms, with_clip_score=False) for name in SPLITS}
        )

    def update(
        self, predicted: Tensor, targets: Targets, statistics: TrainingStatistics, head: LabelScorer | None
    ) -> None:
        """Add predictions [rows, audio width] for a batch."""
        group = targets.visible.sum(1).clamp(1, MOST_SOURCES) - 1
        self.all.update(predicted, targets, statistics, head, group)
        for name, metrics in self.parts.items():
            rows = group == 0 if name == "single" else group > 0
            metrics.update(predicted[rows], targets[rows], statistics, head)

    def compute(self) -> dict[str, Tensor]:
        """Values by metric name; a collective call, so every rank has to make it."""
        parts = {name: metrics.compute() for name, metrics in self.parts.items()}
        values = self.all.compute()
        if any(part["reconstruction_cosine"].isnan() for part in parts.values()):  # one of them has no rows
            return values
        return values | {f"{metric}/{name}": value for name, part in parts.items() for metric, value in part.items()}

    def ssms_per_group(self) -> Tensor | None:
        """SSMS of each group of :data:`SOURCE_GROUPS`; see :class:`PredictedAudioMetrics`."""
        return self.all.ssms_per_group()


class PredictionValidation(nn.Module):
    """All numbers of a validation epoch and, on the first, the floors.

    ``METRIC`` is the stage's own prediction, ``METRIC/NAME`` another way to predict with the same model,
    ``METRIC_floor/NAME`` a prediction that does not change while it is trained. Where the data show different numbers
    of things, all three have SSMS and cosine of rows that show one or several, ``METRIC/single`` and
    ``METRIC/several``, and ``ssms/sources_N`` is the stage's own of those that show N.

    Args:
        top_n: labels a side that SSMS compares.
        with_ssms: False where the data set has no label head.
        with_clip_score: False where the data have no visual embeddings.
        variants: names of the other ways to predict.
        floors: names of the floors.
    """

    def __init__(
        self, top_n: int, with_ssms: bool, with_clip_score: bool, variants: Sequence[str], floors: Sequence[str]
    ) -> None:
        super().__init__()

        def metrics(names: Sequence[str]) -> nn.ModuleDict:
            return nn.ModuleDict({name: BySources(top_n, with_ssms, with_clip_score) for name in names})

        self.predictions, self.floors = metrics([OWN, *variants]), metrics(floors)
        self.floor_values: dict[str, Tensor] | None = None
        self._floor_ssms: dict[str, Tensor] = {}
        self.ssms_by_sources: dict[str, Tensor] = {}
        """SSMS of each group of the last epoch, [groups], NaN without rows; by name of prediction and floor."""

    def update(
        self,
        targets: Targets,
        predictions: Mapping[str, Tensor],
        floors: Callable[[], Mapping[str, Tensor]],
        statistics: TrainingStatistics,
        head: LabelScorer | None,
    ) -> None:
        """Add a batch: each prediction [rows, audio width] under ``prediction`` and the names of the variants.

        ``floors`` is called where they are not measured yet.
        """
        if len(targets) == 0:  # a rank that got one batch less than the others
            return
        measured = [(self.predictions, predictions)]
        if self.floor_values is None:
            with torch.autocast(targets.audio.device.type, enabled=False):
                measured.append((self.floors, floors()))
        for metrics, values in measured:
            for name, predicted in values.items():
                metrics[name].update(predicted, targets, statistics, head)

    def compute(self) -> dict[str, Tensor]:
        """Values by metric name; a collective call, so every rank has to make it."""
        values: dict[str, Tensor] = {}
        for name, metrics in self.predictions.items():
            suffix = "" if name == OWN else f"/{name}"
            values |= {f"{metric}{suffix}": value for metric, value in metrics.compute().items()}
        if self.floor_values is None:
            self.floor_values = {
                f"{metric}_floor/{name}": value
                for name, metrics in self.floors.items()
                for metric, value in metrics.compute().items()
            }
            self._floor_ssms = _ssms_per_group(self.floors)
        self.ssms_by_sources = _ssms_per_group(self.predictions) | self._floor_ssms
        return values | self.floor_values | self._own_by_sources()

    def reset(self, floors: bool = False) -> None:
        """Forget the epoch; the floors stay, unless they are to be measured again."""
        if floors:
            self.floor_values = None
            reset_metrics(self.floors)
        reset_metrics(self.predictions)

    def _own_by_sources(self) -> dict[str, Tensor]:
        by_sources = self.ssms_by_sources.get(OWN, torch.zeros(0))
        there = [(name, value) for name, value in zip(SOURCE_GROUPS, by_sources, strict=False) if not value.isnan()]
        return {f"ssms/{name}": value for name, value in there} if len(there) > 1 else {}


class RemixerValidation(PredictionValidation):
    """Numbers of mixed embeddings, and how alike two draws are: ``draw_cosine``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.draw_cosine = MeanCosine()

    def compute(self) -> dict[str, Tensor]:
        """Values by metric name; a collective call, so every rank has to make it."""
        return super().compute() | {"draw_cosine": self.draw_cosine.compute()}

    def reset(self, floors: bool = False) -> None:
        """Forget the epoch."""
        super().reset(floors)
        self.draw_cosine.reset()


def _ssms_per_group(metrics: nn.ModuleDict) -> dict[str, Tensor]:
    found = {name: metric.ssms_per_group() for name, metric in metrics.items()}
    return {name: values for name, values in found.items() if values is not None}
