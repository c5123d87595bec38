"""Defines what evaluation needs of who hears a sound; any class with these members serves.

The one rule of what they hear is that of :mod:`lightning_ss2a.perception.media.waveform`: the mean of all channels, of
it the protocol's first seconds, resampled with a polyphase filter to the encoder's rate. A shorter sound comes as it
is: what an encoder does to a length or a level that it cannot take is part of its ``identity``.

As in :mod:`lightning_ss2a.perception.encoders.protocols`, a model with an attribute ``device`` runs where that says,
one with ``describe()`` says where its weights are before anything is read, and one with ``load()`` loads them early.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np
from torch import Tensor


@runtime_checkable
class WaveformEncoder(Protocol):
    """Turns sounds into embeddings.

    Attributes:
        sample_rate: samples per second that it hears.
    """

    sample_rate: int

    @property
    def identity(self) -> str:
        """Model, weights and preparation, see :func:`lightning_ss2a.perception.identity.identify`."""

    @property
    def width(self) -> int:
        """Numbers in an embedding."""

    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds, float32 [samples] each, of any length, within -1 to 1: float32 [items, width].

        An item's embedding does not depend on the others. Silence has an embedding, too.
        """


@runtime_checkable
class LabellingEncoder(WaveformEncoder, Protocol):
    """An encoder that tells classes, too.

    Attributes:
        labels: their names.
    """

    labels: tuple[str, ...]

    def embed_and_label(self, waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Embeds as :meth:`embed`; also gives class logits before softmax or sigmoid, float32 [items, labels].

        Of a model that gives probabilities only, their log-odds.
        """


@runtime_checkable
class FrameEncoder(WaveformEncoder, Protocol):
    """An encoder that hears a sound in frames, such as VGGish in patches of 0.96 s."""

    def embed_frames(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Embeds each frame of sounds as :meth:`embed` takes them: float32 [frames, width] a sound, at least one."""


def hears_frames(encoder: WaveformEncoder) -> TypeGuard[FrameEncoder]:
    """Says whether an encoder is a :class:`FrameEncoder`, without loading anything."""
    return callable(getattr(encoder, "embed_frames", None))


def hears_sounds(encoder: WaveformEncoder) -> bool:
    """Says whether an encoder hears sounds, or is known from caches of other evaluators only."""
    return not getattr(encoder, "from_caches_only", False)


def tells_classes(encoder: WaveformEncoder) -> TypeGuard[LabellingEncoder]:
    """Says whether an encoder is a :class:`LabellingEncoder`, without asking for its labels, which may be in a file."""
    return callable(getattr(encoder, "embed_and_label", None))


@runtime_checkable
class SyncEstimator(Protocol):
    """Tells how far a sound is off its video.

    Attributes:
        sample_rate: samples per second that it hears.
        offsets: seconds of each class that it tells apart.
    """

    sample_rate: int
    offsets: tuple[float, ...]

    @property
    def identity(self) -> str:
        """Model, weights and preparation, with the decoder of videos, which changes what is measured."""

    def offset_logits(self, waveforms: Sequence[np.ndarray], videos: Sequence[Path]) -> Tensor:
        """Gives logits of the offsets in each window of a pair: float32 [items, windows, offsets].

        Raises:
            InputError: a video cannot be read, or is too short; names it.
        """
