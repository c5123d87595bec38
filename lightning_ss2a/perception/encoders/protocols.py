"""Defines what builders, generation and evaluation need of an encoder; any class with these members serves.

Batches go in, tensors come out, in float32 on the CPU. An ``identity`` stands in manifests and caches: model, sha256 of
its weights and preparation of its inputs, see :func:`lightning_ss2a.perception.identity.identify`. Data sets whose
fields were made by encoders of other identities are never trained on together.

A model with an attribute ``device`` runs where that says, and one with ``precision`` computes in it (float32, bfloat16
or float16); both may be set until it is first used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from lightning_ss2a.data import LabelHead


@runtime_checkable
class ImageEncoder(Protocol):
    """Turns pictures into embeddings.

    Attributes:
        identity: model, weights and preparation.
        width: numbers in an embedding.
    """

    identity: str
    width: int

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """Embeds RGB pictures, uint8 [height, width, 3] each, of any size: float32 [images, width]."""


@runtime_checkable
class PreparingImageEncoder(ImageEncoder, Protocol):
    """An image encoder that takes pictures that were prepared elsewhere: by processes that have no network."""

    def prepare(self, image: np.ndarray) -> Tensor:
        """Prepares an RGB picture, uint8 [height, width, 3], for the network: [3, side, side].

        It is pickled on its way to other processes, and should not bring the network with it.
        """

    def encode_prepared(self, pixels: Tensor) -> Tensor:
        """Embeds prepared pictures, [images, 3, side, side], as :meth:`encode` embeds the pictures themselves."""


@runtime_checkable
class AudioEncoder(Protocol):
    """Turns sounds into embeddings.

    Attributes:
        identity: model, weights and preparation.
        width: numbers in an embedding.
        sample_rate: samples per second that it hears.
    """

    identity: str
    width: int
    sample_rate: int

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds, float32 [samples] each, of any length, within -1 to 1: float32 [sounds, width]."""

    def label_head(self) -> LabelHead | None:
        """Gives the linear layer that names what an embedding sounds like, if the encoder has one."""


@runtime_checkable
class PreparingAudioEncoder(AudioEncoder, Protocol):
    """An audio encoder that takes sounds that were prepared elsewhere: by processes that have no network."""

    def prepare(self, waveform: np.ndarray) -> Tensor:
        """Prepares a mono sound, float32 [samples], for the network; its shape may depend on the sound's length.

        It is pickled on its way to other processes, as :meth:`PreparingImageEncoder.prepare`.

        Raises:
            InputError: the sound cannot be heard.
        """

    def encode_prepared(self, sounds: Sequence[Tensor]) -> Tensor:
        """Embeds prepared sounds, bit for bit as :meth:`encode` embeds the sounds themselves."""


@dataclass(frozen=True)
class TextFeatures:
    """What a text encoder makes of some texts.

    Attributes:
        texts: the texts themselves.
        embeddings: float32 [texts, width], as the encoder's projection gives them, not normalised.
        hidden: the last hidden states, float32 [texts, tokens, hidden width]; None: the encoder has none to give.
        mask: which tokens belong to the text, bool [texts, tokens]; None with ``hidden``.
    """

    texts: tuple[str, ...]
    embeddings: Tensor
    hidden: Tensor | None = None
    mask: Tensor | None = None


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into embeddings.

    Attributes:
        width: numbers in an embedding.
    """

    width: int

    @property
    def identity(self) -> str:
        """Model, weights and preparation."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts: unit vectors, float32 [texts, width]."""

    def features(self, texts: Sequence[str]) -> TextFeatures:
        """Gives what a prior reads of texts."""


@runtime_checkable
class TextToAudioPrior(Protocol):
    """Turns texts into what an audio encoder would make of a sound of them.

    Attributes:
        width: numbers in an embedding, those of the audio encoder.
    """

    width: int

    @property
    def identity(self) -> str:
        """Model, weights and preparation, with the identities of the encoders on both of its sides."""

    @property
    def audio_encoder_identity(self) -> str:
        """Of the encoder whose embeddings it gives."""

    def predict(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts as sounds: float32 [texts, width]; the same text gives the same embedding in any batch.

        Raises:
            InputError: a text means nothing to it; says which, and names labels that are near.
        """


@runtime_checkable
class TextToImagePrior(Protocol):
    """Turns what a text encoder makes of a text into what an image encoder would make of a picture of it.

    Attributes:
        width: numbers in an embedding, those of the image encoder.
    """

    width: int

    @property
    def identity(self) -> str:
        """Model, weights and preparation, with the identities of the encoders on both of its sides."""

    def predict(self, features: TextFeatures) -> Tensor:
        """Embeds texts as pictures: float32 [texts, width]; the same text gives the same embedding in any batch.

        Raises:
            InputError: a text means nothing to it; says which, and names labels that are near.
        """
