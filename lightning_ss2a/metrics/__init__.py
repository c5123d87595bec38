"""Metrics as torchmetrics classes; the same names without state are in ``metrics.functional``."""

from lightning_ss2a.metrics.clip_score import CLIPScore
from lightning_ss2a.metrics.cosine import MeanCosine
from lightning_ss2a.metrics.modality_gap import ModalityGap
from lightning_ss2a.metrics.retrieval import CrossModalRetrieval
from lightning_ss2a.metrics.ssms import SoundSourceMatchingScore

__all__ = ["CLIPScore", "CrossModalRetrieval", "MeanCosine", "ModalityGap", "SoundSourceMatchingScore"]
