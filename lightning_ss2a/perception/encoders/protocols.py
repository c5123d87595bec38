"""What the builder of shards needs of an encoder; any class with these members serves."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from lightning_ss2a.data import LabelHead


@runtime_checkable
class ImageEncoder(Protocol):
    """Pictures to embeddings.

    Attributes:
        name: stands in the manifest and in the cache: another name for other weights or another preparation.
        width: numbers in an embedding.
    """

    name: str
    width: int

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """Embed square RGB pictures, uint8 [side, side, 3] each, of any side: [images, width], float32."""


@runtime_checkable
class AudioEncoder(Protocol):
    """Sounds to embeddings.

    Attributes:
        name: stands in the manifest and in the cache: another name for other weights or another preparation.
        width: numbers in an embedding.
        sample_rate: samples per second that it hears.
    """

    name: str
    width: int
    sample_rate: int

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embed mono sounds, float32 [samples] each, of any length, within -1 to 1: [sounds, width], float32."""

    def label_head(self) -> LabelHead | None:
        """The linear layer that names what an embedding sounds like, if the encoder has one."""
