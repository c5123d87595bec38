"""The numbers of a validation epoch: one set of metrics, applied to the model and to its floors alike."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_ss2a.metrics import CLIPScore, CrossModalRetrieval, MeanCosine, ModalityGap, SoundSourceMatchingScore
from lightning_ss2a.training.statistics import TrainingStatistics

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
        num_classes: classes of the data set, for SSMS by class; None: no breakdown.
        with_ssms: False where the data set has no label head.
    """

    def __init__(self, top_n: int, num_classes: int | None, with_ssms: bool) -> None:
        super().__init__()
        self.ssms = SoundSourceMatchingScore(top_n=top_n, num_classes=num_classes) if with_ssms else None
        self.clip_score = CLIPScore()
        self.reconstruction_cosine = MeanCosine()

    def update(
        self, predicted: Tensor, batch: dict[str, Tensor], statistics: TrainingStatistics, head: LabelScorer | None
    ) -> None:
        """Add predictions [rows, audio width] for a batch of pairs."""
        direction = normalize(predicted.float(), dim=-1)
        if self.ssms is not None and head is not None:
            scores = head.scores(direction * statistics.audio_norm)
            self.ssms.update(scores, head.scores(batch["audio"]), batch["class_index"])
        self.clip_score.update(statistics.translate_audio(direction), batch["visual"])
        self.reconstruction_cosine.update(direction, batch["audio"])

    def compute(self) -> dict[str, Tensor]:
        """Values by metric name."""
        values = {} if self.ssms is None else {"ssms": self.ssms.compute()}
        return values | {
            "clip_score": self.clip_score.compute(),
            "reconstruction_cosine": self.reconstruction_cosine.compute(),
        }


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
    """What the same metrics say of predictions that need no training: chance, the mean audio, ridge regression.

    Chance predicts the embedding of some training row, whatever it sees; the mean audio predicts the mean training
    embedding; ridge regresses audio on visual embeddings in closed form, and retrieves with the mean training embedding
    taken off both sides. They are measured on the first validation epoch and kept.

    The mean audio ranks the candidates in one order for every query, so its retrieval is chance; a modality gap needs
    both modalities in one space, which only ridge gives without training.
    """

    def __init__(self, top_n: int, with_ssms: bool) -> None:
        super().__init__()
        predictors = ("chance", "mean_audio", "ridge")
        self.predicted = nn.ModuleDict({name: PredictedAudioMetrics(top_n, None, with_ssms) for name in predictors})
        self.ridge_retrieval = CrossModalRetrieval(ks=RECALL_AT)
        self.ridge_gap = ModalityGap()

    def update(self, batch: dict[str, Tensor], statistics: TrainingStatistics, head: LabelScorer | None) -> None:
        """Add a batch of pairs."""
        audio = batch["audio"]
        ridge = statistics.predict_audio(batch["visual"])
        samples = statistics.audio_samples
        predictions = {
            "chance": samples[batch["index"] % len(samples)],
            "mean_audio": statistics.mean_audio.expand_as(audio),
            "ridge": ridge,
        }
        for name, predicted in predictions.items():
            self.predicted[name].update(predicted, batch, statistics, head)
        # What all sounds have in common tells none from another, and would drown what does.
        mean, direction = statistics.mean_audio, normalize(audio, dim=-1)
        self.ridge_retrieval.update(ridge - mean, direction - mean, batch["index"])
        self.ridge_gap.update(ridge, direction)

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
        batch: dict[str, Tensor],
        visual_embedding: Tensor,
        audio_embedding: Tensor,
        predicted_audio: Tensor,
        statistics: TrainingStatistics,
        head: LabelScorer | None,
    ) -> None:
        """Add a batch of pairs: CMSS embeddings [rows, width], and the audio [rows, audio width] made from sight."""
        if len(batch["index"]) == 0:  # a rank that got one batch less than the others
            return
        self.predicted.update(predicted_audio, batch, statistics, head)
        self.alignment.update(visual_embedding, audio_embedding, batch["index"])
        if self.floor_values is None:
            self.floors.update(batch, statistics, head)

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
        ssms = self.predicted.ssms
        return None if ssms is None or ssms.num_classes is None else ssms.per_class().cpu()

    def reset(self, floors: bool = False) -> None:
        """Forget the epoch; the floors stay, unless they are to be measured again."""
        if floors:
            self.floor_values = None
        for module in self.modules():
            if module is not self and hasattr(module, "add_state"):
                module.reset()
