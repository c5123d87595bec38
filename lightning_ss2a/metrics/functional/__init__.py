"""Metrics as pure functions of tensors."""

from lightning_ss2a.metrics.functional.clap_score import clap_score
from lightning_ss2a.metrics.functional.clip_score import clip_score, mean_source_cosine
from lightning_ss2a.metrics.functional.clustering import partition_coefficient
from lightning_ss2a.metrics.functional.cosine import mean_cosine
from lightning_ss2a.metrics.functional.discriminant import discriminant_test
from lightning_ss2a.metrics.functional.frechet import frechet_audio_distance
from lightning_ss2a.metrics.functional.inception_score import inception_score, shuffled_splits
from lightning_ss2a.metrics.functional.kernel import kernel_audio_distance
from lightning_ss2a.metrics.functional.modality_gap import modality_gap
from lightning_ss2a.metrics.functional.offset import (
    desynchronization,
    first_and_last,
    weighted_mean_absolute_offset,
)
from lightning_ss2a.metrics.functional.paired_kl import paired_kl
from lightning_ss2a.metrics.functional.retrieval import median_rank, retrieval_ranks, retrieval_recall
from lightning_ss2a.metrics.functional.ssms import label_agreement, sound_source_matching_score

__all__ = [
    "clap_score",
    "clip_score",
    "desynchronization",
    "discriminant_test",
    "first_and_last",
    "frechet_audio_distance",
    "inception_score",
    "kernel_audio_distance",
    "label_agreement",
    "mean_cosine",
    "mean_source_cosine",
    "median_rank",
    "modality_gap",
    "paired_kl",
    "partition_coefficient",
    "retrieval_ranks",
    "retrieval_recall",
    "shuffled_splits",
    "sound_source_matching_score",
    "weighted_mean_absolute_offset",
]
