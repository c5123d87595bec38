"""Encoders of waveforms that papers evaluate with, and estimators of offsets; weights and packages load on first use.

All hear 16 kHz, made by the one rule of :mod:`lightning_ss2a.perception.media.waveform`. What else an encoder does to a
length or a level is part of its identity. YAMNet and CLAP come from perception, see
:class:`~lightning_ss2a.evaluation.perception_encoders.PerceptionEncoder`.
"""

from lightning_ss2a.evaluation.encoders.beats import BEATs
from lightning_ss2a.evaluation.encoders.onset_sync import OnsetSync
from lightning_ss2a.evaluation.encoders.panns import PANNs
from lightning_ss2a.evaluation.encoders.passt import CachedPaSST
from lightning_ss2a.evaluation.encoders.synchformer import Synchformer
from lightning_ss2a.evaluation.encoders.vggish import VGGish
from lightning_ss2a.evaluation.encoders.wav2clip import Wav2CLIP, Wav2CLIPImages

__all__ = ["BEATs", "CachedPaSST", "OnsetSync", "PANNs", "Synchformer", "VGGish", "Wav2CLIP", "Wav2CLIPImages"]
