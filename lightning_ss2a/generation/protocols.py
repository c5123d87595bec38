"""Defines what generation needs of something that sounds audio embeddings; any class with these members serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class SoundRequest:
    """A sound that is wanted.

    Attributes:
        key: names the item in messages and outputs.
        embedding: the mixed audio embedding, float32 [width].
        sources: audio embedding of each source alone, float32 [sources, width]; may have no rows.
        weights: how loud each source is in proportion to the others, float32 [sources], none negative.
        labels: what each source is called; empty strings where nothing is known.
        seed: of everything that is drawn for this item.
        heard: for each source, whether its embedding is that of a sound (or of a text read as one) and not predicted;
            empty: all are predicted.
        attempt: how many sounds of this request were rejected before.
    """

    key: str
    embedding: Tensor
    sources: Tensor
    weights: Tensor
    labels: tuple[str, ...]
    seed: int
    heard: tuple[bool, ...] = ()
    attempt: int = 0


@dataclass(frozen=True)
class Rendering:
    """What was made of a request.

    Attributes:
        waveform: mono, float32 [samples], within -1 to 1.
        score: cosine of the wanted embedding to that of this sound, where it is known.
        details: how it was made, for the item's JSON: steps and candidates, or the real sounds that it is made of.
    """

    waveform: np.ndarray
    score: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class CalibratedGenerator(Protocol):
    """A generator that chooses among real sounds, and is told what embeddings to expect before it is asked for any.

    Attributes:
        real_sounds: their embeddings, float32 [sounds, width].
    """

    @property
    def real_sounds(self) -> Tensor:
        """Embeddings of the sounds, float32 [sounds, width]."""

    def calibrate(self, expected: Tensor) -> None:
        """Takes embeddings such as will be asked for, float32 [N, width]."""


@runtime_checkable
class SoundGenerator(Protocol):
    """Turns audio embeddings into sounds.

    Attributes:
        identity: model, weights and settings.
        audio_encoder: identity of the encoder whose embeddings it understands; those of others are refused.
        width: numbers in an embedding.
        sample_rate: of its sounds, in hertz.
        is_retrieval: whether its sounds are recordings that exist, and not made.
    """

    identity: str
    audio_encoder: str
    width: int
    sample_rate: int
    is_retrieval: bool

    def generate(self, requests: Sequence[SoundRequest], seconds: float) -> list[Rendering]:
        """Sounds requests: one rendering each, which depends on its own request alone, not on batch or position."""
