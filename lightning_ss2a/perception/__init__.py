"""Media files to embeddings: encoders, and the builder of shards. Media packages are imported when they are used."""

from lightning_ss2a.perception.build import BuildReport, build_pairs
from lightning_ss2a.perception.compose import ComposeReport, compose_dataset
from lightning_ss2a.perception.demo import build_demo
from lightning_ss2a.perception.efficientnet_lite import EfficientNetLite
from lightning_ss2a.perception.encoders import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.yamnet import YAMNet

__all__ = [
    "AudioEncoder",
    "BuildReport",
    "ComposeReport",
    "EfficientNetLite",
    "ImageEncoder",
    "YAMNet",
    "build_demo",
    "build_pairs",
    "compose_dataset",
]
