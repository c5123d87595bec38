"""Callbacks that change what a module is trained on, or with, where no option of it can."""

from lightning_ss2a.analysis.interventions.ccmr_mask import ConstantCcmrMask
from lightning_ss2a.analysis.interventions.hearing import HeardSources
from lightning_ss2a.analysis.interventions.temporal import VideoTruth, WithoutPositions
from lightning_ss2a.analysis.interventions.training_rows import TrainingRows

__all__ = ["ConstantCcmrMask", "HeardSources", "TrainingRows", "VideoTruth", "WithoutPositions"]
