"""Callbacks that measure more of a module at validation; each logs ``val/*`` scalars for the tables of sweeps.

They measure in one process, and nothing of what they measure reaches the training.
"""

from lightning_ss2a.analysis.probes.ccmr_mask import CcmrMaskStatistics
from lightning_ss2a.analysis.probes.class_similarity import ClassSimilarity
from lightning_ss2a.analysis.probes.cycle_mix import CycleMixScore
from lightning_ss2a.analysis.probes.generalization import GeneralizationGap
from lightning_ss2a.analysis.probes.hearing import SourceSensitivity, TranslatorAgreement
from lightning_ss2a.analysis.probes.modality import LinearDiscriminability, PairCosines
from lightning_ss2a.analysis.probes.pair_filter import FilterQuality
from lightning_ss2a.analysis.probes.pairs import PairBounds
from lightning_ss2a.analysis.probes.scenes import MeanOfSamples, TruthBound
from lightning_ss2a.analysis.probes.temporal import QuarterRidge, ScoresBySourceCount, ShuffledTimestamps

__all__ = [
    "CcmrMaskStatistics",
    "ClassSimilarity",
    "CycleMixScore",
    "FilterQuality",
    "GeneralizationGap",
    "LinearDiscriminability",
    "MeanOfSamples",
    "PairBounds",
    "PairCosines",
    "QuarterRidge",
    "ScoresBySourceCount",
    "ShuffledTimestamps",
    "SourceSensitivity",
    "TranslatorAgreement",
    "TruthBound",
]
