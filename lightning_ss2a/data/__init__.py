"""Reads, writes and loads data sets of embeddings: shards, their manifest, and batches for training.

What needs Lightning (``ShardDataModule``) is imported on first use, so that reading and writing shards starts fast.
"""

from importlib import import_module
from typing import Any

from lightning_ss2a.data.format.columns import Ragged
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.format.manifest import Manifest, Shard, field_width
from lightning_ss2a.data.format.reader import ShardReader
from lightning_ss2a.data.format.schema import FRAMES_PER_VIDEO, KINDS, PAIR_ORIGINS, FieldSpec
from lightning_ss2a.data.format.writer import ShardWriter
from lightning_ss2a.errors import ShardError

__all__ = [
    "FRAMES_PER_VIDEO",
    "KINDS",
    "PAIR_ORIGINS",
    "FieldSpec",
    "LabelHead",
    "Manifest",
    "Ragged",
    "Shard",
    "ShardError",
    "ShardReader",
    "ShardWriter",
    "field_width",
]

_ON_FIRST_USE = {
    "ShardDataModule": "lightning_ss2a.data.loading.datamodule",
    "ShardDataset": "lightning_ss2a.data.loading.dataset",
}
__all__ += sorted(_ON_FIRST_USE)


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ON_FIRST_USE[name]), name)
