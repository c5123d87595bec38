"""Lets perception's audio encoders, such as YAMNet and CLAP, be what evaluation hears with."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.protocols import AudioEncoder


class PerceptionEncoder:
    """An audio encoder of perception, such as YAMNet or CLAP, as an encoder of waveforms.

    Args:
        encoder: of perception. If it has a label head, use :class:`LabellingPerceptionEncoder` for its classes.
    """

    def __init__(self, encoder: AudioEncoder) -> None:
        self.encoder = encoder
        self.sample_rate = encoder.sample_rate

    @property
    def identity(self) -> str:
        """That of the encoder."""
        return self.encoder.identity

    @property
    def width(self) -> int:
        """That of the encoder."""
        return self.encoder.width

    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds sounds, see :meth:`~lightning_ss2a.evaluation.protocols.WaveformEncoder.embed`."""
        return self.encoder.encode(waveforms)


class LabellingPerceptionEncoder(PerceptionEncoder):
    """An audio encoder of perception with its label head.

    Args:
        encoder: of perception.

    Raises:
        InputError: it has no label head.
    """

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__(encoder)
        head = encoder.label_head()
        if head is None:
            raise InputError(f"{encoder.identity} names no classes; take an encoder with a label head, such as YAMNet")
        self._head = head
        self.labels = head.labels

    def embed_and_label(self, waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Embeds and labels sounds, as :class:`~lightning_ss2a.evaluation.protocols.LabellingEncoder` wants it."""
        embeddings = self.embed(waveforms)
        with torch.inference_mode():
            return embeddings, self._head.scores(embeddings)
