"""Defines what builders need of an encoder; any class with these members serves."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from lightning_ss2a.data import LabelHead


@runtime_checkable
class ImageEncoder(Protocol):
    """Turns pictures into embeddings.

    Attributes:
        name: stands in the manifest and in the cache: another name for other weights or another preparation.
        width: numbers in an embedding.
    """

    name: str
    width: int

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """Embeds square RGB pictures, uint8 [side, side, 3] each, of any side: float32 [images, width]."""


@runtime_checkable
class AudioEncoder(Protocol):
    """Turns sounds into embeddings.

    Attributes:
        name: stands in the manifest and in the cache: another name for other weights or another preparation.
        width: numbers in an embedding.
        sample_rate: samples per second that it hears.
    """

    name: str
    width: int
    sample_rate: int

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds, float32 [samples] each, of any length, within -1 to 1: float32 [sounds, width]."""

    def label_head(self) -> LabelHead | None:
        """Gives the linear layer that names what an embedding sounds like, if the encoder has one."""
