"""Measures folders of sounds: encoders of waveforms, the metrics on them, tables."""

from lightning_ss2a.evaluation.measures import CLAP, CLIP, FAD, IS, KAD, KL, SSMS, WMAO, DeSync, FADInfinity
from lightning_ss2a.evaluation.perception_encoders import LabellingPerceptionEncoder, PerceptionEncoder

__all__ = [
    "CLAP",
    "CLIP",
    "FAD",
    "IS",
    "KAD",
    "KL",
    "SSMS",
    "WMAO",
    "DeSync",
    "FADInfinity",
    "LabellingPerceptionEncoder",
    "PerceptionEncoder",
]
