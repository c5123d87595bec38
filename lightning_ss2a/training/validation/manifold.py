"""The numbers of a validation epoch: one set of metrics, applied to the model and to its floors alike."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics import Metric

from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.metrics import CLIPScore, CrossModalRetrieval, MeanCosine, ModalityGap, SoundSourceMatchingScore
from lightning_ss2a.training.validation.baselines import TrainingStatistics
from lightning_ss2a.training.validation.targets import Targets, targets_of

RECALL_AT = (1, 5, 10)


class LabelScorer(Protocol):
    """What stands in for an audio tagger: label scores [rows, labels] of audio embeddings [rows, width]."""

    def scores(self, audio: Tensor) -> Tensor:
        """Label scores, [rows, labels]."""


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
        """Add predictions [rows, audio width] for a batch, with the group of each row, [rows]."""
        direction = normalize(predicted.float(), dim=-1)
        if self.ssms is not None and head is not None:
            with torch.autocast(direction.device.type, enabled=False):
                scores = head.scores(direction * statistics.audio_norm), head.scores(targets.audio)
            self.ssms.update(*scores, group)
        if self.clip_score is not None and targets.visual is not None:
            self.clip_score.update(statistics.translate_audio(direction), targets.visual, targets.visible)
        self.reconstruction_cosine.update(direction, targets.audio)

    def compute(self) -> dict[str, Tensor]:
        """Values by metric name."""
        values = {} if self.ssms is None else {"ssms": self.ssms.compute()}
        if self.clip_score is not None:
            values["clip_score"] = self.clip_score.compute()
        return values | {"reconstruction_cosine": self.reconstruction_cosine.compute()}

    def ssms_per_group(self) -> Tensor | None:
        """SSMS of each group, [groups] on the CPU, NaN where a group has no row; None without breakdown.

        A collective call, so every rank has to make it.
        """
        if self.ssms is None or self.ssms.num_classes is None:
            return None
        return self.ssms.per_class().cpu()


def untrained_predictions(targets: Targets, statistics: TrainingStatistics) -> dict[str, Tensor]:
    """What needs no training predicts, [rows, audio width] each: chance, the mean audio, ridge regression.

    Chance predicts the embedding of some training row, whatever it sees; the mean audio predicts the mean training
    embedding; ridge regresses audio on what is seen in closed form.
    """
    samples = statistics.audio_samples
    return {
        "chance": samples[targets.index % len(samples)],
        "mean_audio": statistics.mean_audio.expand_as(targets.audio),
        "ridge": statistics.predict_audio(targets.features),
    }


FLOORS = ("chance", "mean_audio", "ridge")
"""Names of :func:`untrained_predictions`."""


class AlignmentMetrics(nn.Module):
    """Retrieval both ways and the modality gap of two embeddings in one space."""

    def __init__(self) -> None:
        super().__init__()
        self.retrieval = CrossModalRetrieval(ks=RECALL_AT)
        self.gap = ModalityGap()

    def update(self, visual_embedding: Tensor, audio_embedding: Tensor, index: Tensor) -> None:
        """Add the embeddings [rows, width] of pairs; ``index`` tells their order, [rows]."""
        self.retrieval.update(visual_embedding.float(), audio_embedding.float(), index)
        self.gap.update(visual_embedding.float(), audio_embedding.float())

    def compute(self) -> dict[str, Tensor]:
        """Values by metric name."""
        return self.retrieval.compute() | {"modality_gap": self.gap.compute()}


class Floors(nn.Module):
    """What the same metrics say of predictions that need no training, see :func:`untrained_predictions`.

    Ridge regression retrieves with the mean training embedding taken off both sides. Floors are measured on the first
    validation epoch and kept.

    The mean audio ranks the candidates in one order for every query, so its retrieval is chance; a modality gap needs
    both modalities in one space, which only ridge gives without training.
    """

    def __init__(self, top_n: int, with_ssms: bool) -> None:
        super().__init__()
        self.predicted = nn.ModuleDict({name: PredictedAudioMetrics(top_n, None, with_ssms) for name in FLOORS})
        self.ridge_retrieval = CrossModalRetrieval(ks=RECALL_AT)
        self.ridge_gap = ModalityGap()

    def update(self, targets: Targets, statistics: TrainingStatistics, head: LabelScorer | None) -> None:
        """Add a batch of pairs."""
        predictions = untrained_predictions(targets, statistics)
        for name, predicted in predictions.items():
            self.predicted[name].update(predicted, targets, statistics, head)
        # What all sounds have in common tells none from another, and would drown what does.
        mean, direction = statistics.mean_audio, normalize(targets.audio, dim=-1)
        self.ridge_retrieval.update(predictions["ridge"] - mean, direction - mean, targets.index)
        self.ridge_gap.update(predictions["ridge"], direction)

    def compute(self, rows: int) -> dict[str, dict[str, Tensor]]:
        """Floors by metric, then by floor; ``rows`` is the number of candidates that retrieval chooses from."""
        floors: dict[str, dict[str, Tensor]] = {}
        for name, metrics in self.predicted.items():
            for metric, value in metrics.compute().items():
                floors.setdefault(metric, {})[name] = value
        for metric, value in self.ridge_retrieval.compute().items():
            floors[metric] = {"ridge": value}
        floors["modality_gap"] = {"ridge": self.ridge_gap.compute()}
        for direction in ("visual_to_audio", "audio_to_visual"):
            for k in RECALL_AT:
                floors[f"recall@{k}/{direction}"]["chance"] = torch.tensor(min(1.0, k / rows))
            floors[f"median_rank/{direction}"]["chance"] = torch.tensor((rows + 1) / 2)
        return floors


class ManifoldValidation(nn.Module):
    """All numbers of a manifold's validation epoch and, on the first, its floors.

    Args:
        top_n: labels a side that SSMS compares.
        num_classes: classes of the data set, for SSMS by class.
        with_ssms: False where the data set has no label head.
    """

    def __init__(self, top_n: int, num_classes: int | None, with_ssms: bool) -> None:
        super().__init__()
        self.predicted = PredictedAudioMetrics(top_n, num_classes, with_ssms)
        self.alignment = AlignmentMetrics()
        self.floors = Floors(top_n, with_ssms)
        self.floor_values: dict[str, dict[str, Tensor]] | None = None

    def update(
        self,
        batch: Batch,
        visual_embedding: Tensor,
        audio_embedding: Tensor,
        predicted_audio: Tensor,
        statistics: TrainingStatistics,
        head: LabelScorer | None,
    ) -> None:
        """Add a batch of pairs: CMSS embeddings [rows, width], and the audio [rows, audio width] made from sight."""
        targets = targets_of(batch)
        if len(targets) == 0:  # a rank that got one batch less than the others
            return
        self.predicted.update(predicted_audio, targets, statistics, head, batch["class_index"])
        self.alignment.update(visual_embedding, audio_embedding, targets.index)
        if self.floor_values is None:
            self.floors.update(targets, statistics, head)

    def compute(self) -> dict[str, Tensor]:
        """Values by metric name, floors as ``METRIC_floor/NAME``; a collective call, so every rank has to make it."""
        values = self.predicted.compute() | self.alignment.compute()
        if self.floor_values is None:
            self.floor_values = self.floors.compute(int(self.alignment.retrieval.rows))
        for metric, floors in self.floor_values.items():
            values |= {f"{metric}_floor/{name}": value for name, value in floors.items()}
        return values

    def ssms_per_class(self) -> Tensor | None:
        """SSMS of each class, [classes], NaN where the split has none; None without a label head."""
        return self.predicted.ssms_per_group()

    def reset(self, floors: bool = False) -> None:
        """Forget the epoch; the floors stay, unless they are to be measured again."""
        if floors:
            self.floor_values = None
        reset_metrics(self)


def reset_metrics(modules: nn.Module) -> None:
    """Reset all metrics that a module holds."""
    for module in modules.modules():
        if isinstance(module, Metric):
            module.reset()
