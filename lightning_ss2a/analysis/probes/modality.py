"""Measures how far visual and audio embeddings lie apart in the manifold (paper, supplement 3.1 and 3.2)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.analysis.probes.base import RowsProbe
from lightning_ss2a.metric_names import baseline_metric
from lightning_ss2a.metrics.functional import modality_gap
from lightning_ss2a.training import ManifoldModule


class LinearDiscriminability(RowsProbe[ManifoldModule]):
    """Logs ``val/linear_discriminability``: how often a linear classifier tells a visual from an audio embedding.

    Of a manifold's CMSS means, from 0.5, chance, to 1. Where the encoders' embeddings are of one width, theirs is the
    baseline ``raw``, which ``val/modality_gap`` then has too.
    """

    stages = (ManifoldModule,)

    def collect(self, batch: dict[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Picks CMSS means, and the encoders' embeddings."""
        cmss = {name: outputs[f"{name}_embedding"] for name in ("visual", "audio")}
        return cmss | {f"raw_{name}": batch[name] for name in cmss}

    def measure(self, trainer: Trainer, module: ManifoldModule, rows: dict[str, Tensor]) -> dict[str, float]:
        """Computes what the class logs."""
        numbers = {"linear_discriminability": linear_discriminability(rows["visual"], rows["audio"])}
        raw = rows["raw_visual"], rows["raw_audio"]
        if raw[0].shape == raw[1].shape:
            numbers[baseline_metric("linear_discriminability", "raw")] = linear_discriminability(*raw)
            numbers[baseline_metric("modality_gap", "raw")] = float(modality_gap(*raw))
        return numbers


class PairCosines(RowsProbe[ManifoldModule]):
    """Logs ``val/pair_cosine/matching`` and ``val/pair_cosine/other``, in [-1, 1].

    Mean cosine of the visual and the audio CMSS mean of a pair, and of a pair's visual with the next pair's audio.
    """

    stages = (ManifoldModule,)

    def collect(self, batch: dict[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Picks CMSS means."""
        return {name: outputs[f"{name}_embedding"] for name in ("visual", "audio")}

    def measure(self, trainer: Trainer, module: ManifoldModule, rows: dict[str, Tensor]) -> dict[str, float]:
        """Computes what the class logs."""
        visual, audio = rows["visual"], rows["audio"]
        others = {"matching": audio, "other": audio.roll(1, 0)}
        return {f"pair_cosine/{n}": float(torch.cosine_similarity(visual, x).mean()) for n, x in others.items()}


def linear_discriminability(visual: Tensor, audio: Tensor, parts: int = 5) -> float:
    """Computes the accuracy of a linear classifier between two modalities, [rows, width] each; 0.5 is chance.

    Logistic regression on unit vectors, its inputs standardised. Each of ``parts`` parts of the rows is tested with the
    classifier that the others trained; the two embeddings of a row stay together.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = len(visual)
    x = normalize(torch.cat([visual, audio]).double(), dim=1).cpu().numpy()
    y, group = np.repeat([0, 1], rows), np.tile(np.arange(rows), 2)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(cross_val_score(model, x, y, groups=group, cv=GroupKFold(parts)).mean())
