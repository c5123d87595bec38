"""Measures what aggregated videos owe to time (paper, section 5.2 and Table 12)."""

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.analysis.interventions.base import changed_training_batches
from lightning_ss2a.analysis.probes.base import PredictionProbe, Probe
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.simulation.truth import read_truth
from lightning_ss2a.files import local_path
from lightning_ss2a.metric_names import baseline_metric
from lightning_ss2a.metrics.functional import sound_source_matching_score
from lightning_ss2a.models import mean_over_frames
from lightning_ss2a.models.ridge import RidgeRegression
from lightning_ss2a.training import TemporalAggregationModule
from lightning_ss2a.training.validation.targets import Targets, targets_of

QUARTERS = 4


class ShuffledTimestamps(PredictionProbe[TemporalAggregationModule]):
    """Scores the aggregator on videos whose timestamps were shuffled, as ``/shuffled_timestamps``."""

    stages = (TemporalAggregationModule,)

    def predict(self, module: TemporalAggregationModule, batch: dict[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Predicts; see the class."""
        times = shuffle_timestamps(batch["timestamps"])
        return {"/shuffled_timestamps": module.predict_audio({**batch, "timestamps": times})}


class QuarterRidge(PredictionProbe[TemporalAggregationModule]):
    """Scores a ridge regression on the mean frame of each quarter of a video, as the baseline ``quarter_ridge``.

    It knows roughly when, as the baseline ``ridge``, on the mean frame, does not.
    """

    stages = (TemporalAggregationModule,)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fits the regression, with a penalty by generalised cross-validation."""
        ridge = None
        for rows in changed_training_batches(trainer):
            features = quarter_means(rows["frames"])
            if ridge is None:
                ridge = RidgeRegression(features.shape[-1], rows["audio"].shape[-1], device=features.device)
            ridge.update(features, normalize(rows["audio"], dim=-1))
        assert ridge is not None  # the module has refused a training split without rows
        self.ridge = ridge.fit()

    def predict(self, module: TemporalAggregationModule, batch: dict[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Predicts; see the class."""
        return {baseline_metric("", "quarter_ridge"): self.ridge(quarter_means(batch["frames"]))}


class ScoresBySourceCount(Probe[TemporalAggregationModule]):
    """Logs SSMS and cosine of aggregated videos by the number of their sources: ``val/ssms/sources_N`` and so on.

    Beside the module's own: the baselines ``mean_audio``, ``frame_mean`` and ``ridge``.

    Args:
        videos: data set that the frames were generated for: a simulated one, or one that was composed, such as
            ``shards/demo_videos``. It knows the sources.
    """

    stages = (TemporalAggregationModule,)

    def __init__(self, videos: str) -> None:
        self.videos = videos

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the numbers of sources."""
        super().setup(trainer, pl_module, stage)
        self._counts = source_counts(self.videos, data_of(trainer).splits("validation")[0][0])

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._values: dict[str, list[Tensor]] = defaultdict(list)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Scores each row."""
        module, targets = self.module(pl_module), targets_of(batch)
        statistics, head = module.statistics, module.label_head
        predictions = {
            "": module.predict_audio(batch),
            baseline_metric("", "mean_audio"): statistics.mean_audio.expand_as(batch["audio"]),
            baseline_metric("", "frame_mean"): mean_over_frames(batch["frames"]),
            baseline_metric("", "ridge"): statistics.predict_audio(targets.features),
        }
        self._values["count"].append(torch.tensor([self._counts[key] for key in batch["key"]]))
        for suffix, predicted in predictions.items():
            direction = normalize(predicted.float(), dim=-1)
            if head is not None:
                scores = head.scores(direction * statistics.audio_norm), head.scores(batch["audio"])
                ssms = sound_source_matching_score(*scores, module.measuring.top_n, reduction="none")
                self._values[f"ssms/sources_{{}}{suffix}"].append(ssms.cpu())
            cosine = torch.cosine_similarity(direction, batch["audio"])
            self._values[f"reconstruction_cosine/sources_{{}}{suffix}"].append(cosine.cpu())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the means."""
        values = {name: torch.cat(parts) for name, parts in self._values.items()}
        counts = values.pop("count")
        for count in counts.unique().tolist():
            means = {name.format(count): x[counts == count].mean() for name, x in values.items()}
            self.log_numbers(trainer, pl_module, means)


def shuffle_timestamps(times: Tensor) -> Tensor:
    """Puts timestamps of each video in another order, [B, T] -> [B, T], the same whenever it is called."""
    order = torch.rand(times.shape, generator=torch.Generator().manual_seed(0)).argsort(1)
    return times.gather(1, order.to(times.device))


def quarter_means(frames: Tensor) -> Tensor:
    """Lays the mean unit frames of each quarter side by side, [B, T, A] -> [B, 4 A]; frames in order of time."""
    return normalize(frames, dim=-1).unflatten(1, (QUARTERS, -1)).mean(2).flatten(1)


def source_counts(videos: str, split: str) -> dict[str, int]:
    """Counts the sources of each video of a split, by key; see :class:`ScoresBySourceCount`."""
    compositions = Path(local_path(videos), "compositions.csv")
    if compositions.is_file():
        with open(compositions, newline="", encoding="utf-8") as opened:
            return dict(Counter(row["key"] for row in csv.DictReader(opened)))
    truth = read_truth(videos, split)
    counts = np.asarray(truth["visual_classes"] >= 0).sum(1).tolist()
    return {key.decode(): count for key, count in zip(truth["key"], counts, strict=True)}
