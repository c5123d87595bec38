"""The container of a validation epoch: metrics of the model, anew each epoch, and of its baselines, once a run."""

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_ss2a.metric_names import OWN, baseline_metric
from lightning_ss2a.training.validation.baselines import TrainingStatistics
from lightning_ss2a.training.validation.targets import Targets

Prediction = TypeVar("Prediction")
"""What one way to predict gives for a batch: a tensor [rows, width], or several of them."""


class LabelScorer(Protocol):
    """What stands in for an audio tagger."""

    def scores(self, audio: Tensor) -> Tensor:
        """Scores the labels of audio embeddings, [rows, width] -> [rows, labels]."""


class MetricSet(nn.Module, Generic[Prediction]):
    """Metrics of one way to predict.

    Attributes:
        group_names: groups of rows whose SSMS is logged too, as ``ssms/GROUP``; empty: it is not.
    """

    group_names: tuple[str, ...] = ()

    def update(
        self, prediction: Prediction, targets: Targets, statistics: TrainingStatistics, head: LabelScorer | None
    ) -> None:
        """Adds the prediction for a batch."""
        raise NotImplementedError

    def compute(self) -> dict[str, Tensor]:
        """Computes the values by metric name; a collective call, so every rank has to make it."""
        raise NotImplementedError

    def chance(self) -> dict[str, Tensor]:
        """States what random choice would reach, in closed form, of as many rows as :meth:`compute` has seen."""
        return {}

    def ssms_per_group(self) -> Tensor | None:
        """Computes SSMS of each group of rows, [groups] on the CPU, NaN where a group has no row; None without groups.

        A collective call, so every rank has to make it.
        """
        return None


class EpochMetrics(nn.Module, Generic[Prediction]):
    """All metrics of a validation epoch.

    ``METRIC`` is the model's own prediction, ``METRIC/NAME`` another way to predict with the same model,
    ``METRIC_baseline/NAME`` a baseline: a prediction that does not change while the model is trained. Baselines are
    measured in the first epoch and kept.

    Args:
        predictions: metrics of the model's ways to predict, its own under ``prediction``.
        baselines: metrics of the baselines.
        extra: metrics of their own name, which the caller updates.

    Attributes:
        extra: as given.
        ssms_by_group: SSMS of each group of rows in the last epoch, [groups], NaN without rows; by name of prediction
            and baseline.
    """

    def __init__(
        self,
        predictions: Mapping[str, MetricSet[Prediction]],
        baselines: Mapping[str, MetricSet[Prediction]],
        extra: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        self._predictions, self._baselines, self.extra = dict(predictions), dict(baselines), dict(extra or {})
        held = (self._predictions, self._baselines, self.extra)
        self._moved_with_the_module = nn.ModuleList([metrics for group in held for metrics in group.values()])
        self._baseline_values: dict[str, Tensor] | None = None
        self._baseline_ssms: dict[str, Tensor] = {}
        self.ssms_by_group: dict[str, Tensor] = {}

    def update(
        self,
        targets: Targets,
        predictions: Mapping[str, Prediction],
        baselines: Callable[[Targets, TrainingStatistics], Mapping[str, Prediction]],
        statistics: TrainingStatistics,
        head: LabelScorer | None,
    ) -> None:
        """Adds a batch.

        Args:
            targets: what predictions are measured against.
            predictions: those of the model by name.
            baselines: predicts what baselines do, by name; called where they are not measured yet, in float32.
            statistics: closed-form summaries of the training split.
            head: label head of the data, if they have one.
        """
        if len(targets) == 0:  # a rank that got one batch less than the others
            return
        for name, prediction in predictions.items():
            self._predictions[name].update(prediction, targets, statistics, head)
        if self._baseline_values is None:
            with torch.autocast(targets.audio.device.type, enabled=False):
                measured = baselines(targets, statistics)
            for name, prediction in measured.items():
                self._baselines[name].update(prediction, targets, statistics, head)

    def compute(self) -> dict[str, Tensor]:
        """Computes the values by name; a collective call, so every rank has to make it."""
        values: dict[str, Tensor] = {}
        for name, metrics in self._predictions.items():
            suffix = "" if name == OWN else f"/{name}"
            values |= {f"{metric}{suffix}": value for metric, value in metrics.compute().items()}
        if self._baseline_values is None:
            self._baseline_values = self._compute_baselines()
            self._baseline_ssms = _ssms_per_group(self._baselines)
        self.ssms_by_group = _ssms_per_group(self._predictions) | self._baseline_ssms
        extra = {name: metric.compute() for name, metric in self.extra.items()}
        return values | self._baseline_values | self._own_ssms_by_group() | extra

    def reset(self, baselines: bool = False) -> None:
        """Forgets the epoch; the baselines stay, unless they are to be measured again."""
        if baselines:
            self._baseline_values = None
            _reset(self._baselines.values())
        _reset([*self._predictions.values(), *self.extra.values()])

    def _compute_baselines(self) -> dict[str, Tensor]:
        computed = {name: metrics.compute() for name, metrics in self._baselines.items()}
        computed["chance"] = computed.get("chance", {}) | self._predictions[OWN].chance()
        return {baseline_metric(metric, name): x for name, values in computed.items() for metric, x in values.items()}

    def _own_ssms_by_group(self) -> dict[str, Tensor]:
        names, values = self._predictions[OWN].group_names, self.ssms_by_group.get(OWN, torch.zeros(0))
        there = [(name, value) for name, value in zip(names, values, strict=False) if not value.isnan()]
        return {f"ssms/{name}": value for name, value in there} if len(there) > 1 else {}


def _ssms_per_group(sets: Mapping[str, MetricSet[Prediction]]) -> dict[str, Tensor]:
    found = {name: metrics.ssms_per_group() for name, metrics in sets.items()}
    return {name: values for name, values in found.items() if values is not None}


def _reset(modules: Iterable[nn.Module]) -> None:
    for metric in (part for module in modules for part in module.modules()):
        if isinstance(metric, Metric):
            metric.reset()
