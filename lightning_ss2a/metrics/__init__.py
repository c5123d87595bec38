"""Metrics as torchmetrics classes; the same names without state are in ``metrics.functional``.

The classes are imported on first use: torchmetrics takes seconds, and the functions do without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "ClapScore": "clap_score",
    "CLIPScore": "clip_score",
    "PartitionCoefficient": "clustering",
    "MeanCosine": "cosine",
    "DiscriminantTest": "discriminant",
    "FrechetAudioDistance": "frechet",
    "FrechetExtrapolation": "functional.frechet",
    "InceptionScore": "inception_score",
    "KernelAudioDistance": "kernel",
    "ModalityGap": "modality_gap",
    "Desynchronization": "offset",
    "WeightedMeanAbsoluteOffset": "offset",
    "PairedKL": "paired_kl",
    "CrossModalRetrieval": "retrieval",
    "SoundSourceMatchingScore": "ssms",
}


def __getattr__(name: str) -> Any:
    """Imports a class when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
