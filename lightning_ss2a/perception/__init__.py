"""Turns media files into embeddings. Media packages are imported when they are used."""

from lightning_ss2a.perception.detectors.grounding_dino import GroundingDINO
from lightning_ss2a.perception.detectors.nanodet import NanoDet
from lightning_ss2a.perception.detectors.yolo import YOLO
from lightning_ss2a.perception.encoders.clap import (
    CLAPAudioEncoder,
    CLAPTextEncoder,
    LaionCLAPAudioEncoder,
    LaionCLAPTextEncoder,
)
from lightning_ss2a.perception.encoders.clip import CLIPImageEncoder, CLIPTextEncoder
from lightning_ss2a.perception.encoders.efficientnet_lite import EfficientNetLite
from lightning_ss2a.perception.encoders.minilm import MiniLM
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.encoders.yamnet import YAMNet
from lightning_ss2a.perception.media.video import PyAVReader
from lightning_ss2a.perception.priors.clap_sound_prior import CLAPSoundPrior
from lightning_ss2a.perception.priors.diffusion_prior import DiffusionPrior
from lightning_ss2a.perception.priors.label_prior import LabelPrior
from lightning_ss2a.perception.priors.label_sound_prior import LabelSoundPrior

__all__ = [
    "YOLO",
    "AudioEncoder",
    "CLAPAudioEncoder",
    "CLAPSoundPrior",
    "CLAPTextEncoder",
    "CLIPImageEncoder",
    "CLIPTextEncoder",
    "DiffusionPrior",
    "EfficientNetLite",
    "GroundingDINO",
    "ImageEncoder",
    "LabelPrior",
    "LabelSoundPrior",
    "LaionCLAPAudioEncoder",
    "LaionCLAPTextEncoder",
    "MiniLM",
    "NanoDet",
    "PyAVReader",
    "YAMNet",
]
