"""Lightning callbacks: what is watched, drawn and written while a module trains."""

from lightning_ss2a.callbacks.figures.manifold import ManifoldFigures
from lightning_ss2a.callbacks.figures.remixer import RemixerFigures
from lightning_ss2a.callbacks.hyperparameters import HyperparameterBoard
from lightning_ss2a.callbacks.interrupt import GracefulInterrupt
from lightning_ss2a.callbacks.mean_teacher.pair_filter import PairFilter
from lightning_ss2a.callbacks.mean_teacher.teacher import EMATeacher
from lightning_ss2a.callbacks.predictions import CMSSShardWriter, PredictionShardWriter
from lightning_ss2a.callbacks.summary import RunSummary
from lightning_ss2a.callbacks.throughput import Throughput

__all__ = [
    "CMSSShardWriter",
    "EMATeacher",
    "GracefulInterrupt",
    "HyperparameterBoard",
    "ManifoldFigures",
    "PairFilter",
    "PredictionShardWriter",
    "RemixerFigures",
    "RunSummary",
    "Throughput",
]
