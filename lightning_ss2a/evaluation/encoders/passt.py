"""Stands for PaSST (Koutini et al. 2022), of which only what av-benchmark has heard is measured."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.audioset import CLASSES

WIDTH = 768
"""Numbers before the head; the logits of AudioSet's classes lie in another file."""


class CachedPaSST:
    """Lets measures read PaSST's embeddings and logits from av-benchmark's caches; hears no sound itself."""

    part: ClassVar[str] = "PaSST"
    from_caches_only: ClassVar[bool] = True
    identity: str = "PaSST, from caches"
    sample_rate: int = 32_000
    width: int = WIDTH
    labels: tuple[str, ...] = tuple(map(str, range(CLASSES)))

    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Refuses.

        Raises:
            InputError: always.
        """
        raise InputError("PaSST hears no sounds here: give folders of av-benchmark's caches")

    def embed_and_label(self, waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Refuses, as :meth:`embed` does."""
        raise InputError("PaSST hears no sounds here: give folders of av-benchmark's caches")
