"""Metrics as pure functions of tensors."""

from lightning_ss2a.metrics.functional.clip_score import clip_score, mean_source_cosine
from lightning_ss2a.metrics.functional.cosine import mean_cosine
from lightning_ss2a.metrics.functional.modality_gap import modality_gap
from lightning_ss2a.metrics.functional.retrieval import median_rank, retrieval_ranks, retrieval_recall
from lightning_ss2a.metrics.functional.ssms import sound_source_matching_score

__all__ = [
    "clip_score",
    "mean_cosine",
    "mean_source_cosine",
    "median_rank",
    "modality_gap",
    "retrieval_ranks",
    "retrieval_recall",
    "sound_source_matching_score",
]
