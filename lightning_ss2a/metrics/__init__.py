"""Metrics as torchmetrics classes; the same names without state are in ``metrics.functional``."""

from lightning_ss2a.metrics.clap_score import ClapScore
from lightning_ss2a.metrics.clip_score import CLIPScore
from lightning_ss2a.metrics.clustering import PartitionCoefficient
from lightning_ss2a.metrics.cosine import MeanCosine
from lightning_ss2a.metrics.discriminant import DiscriminantTest
from lightning_ss2a.metrics.frechet import FrechetAudioDistance
from lightning_ss2a.metrics.functional.frechet import FrechetExtrapolation
from lightning_ss2a.metrics.inception_score import InceptionScore
from lightning_ss2a.metrics.kernel import KernelAudioDistance
from lightning_ss2a.metrics.modality_gap import ModalityGap
from lightning_ss2a.metrics.offset import Desynchronization, WeightedMeanAbsoluteOffset
from lightning_ss2a.metrics.paired_kl import PairedKL
from lightning_ss2a.metrics.retrieval import CrossModalRetrieval
from lightning_ss2a.metrics.ssms import SoundSourceMatchingScore

__all__ = [
    "CLIPScore",
    "ClapScore",
    "CrossModalRetrieval",
    "Desynchronization",
    "DiscriminantTest",
    "FrechetAudioDistance",
    "FrechetExtrapolation",
    "InceptionScore",
    "KernelAudioDistance",
    "MeanCosine",
    "ModalityGap",
    "PairedKL",
    "PartitionCoefficient",
    "SoundSourceMatchingScore",
    "WeightedMeanAbsoluteOffset",
]
