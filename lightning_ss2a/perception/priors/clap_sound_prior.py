"""Takes the embeddings of CLAP's text tower for those of sounds: both towers were trained on one space."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.clap import CLAPAudioEncoder, CLAPTextEncoder
from lightning_ss2a.perception.weights import ModelCard, load_models

PART = "sound prior"
VERSION = 1
"""Goes up when texts are translated in another way."""


class CLAPSoundPrior:
    """Reads a text as the sound that it is nearest to: by CLAP's own text tower, without a prior in between.

    Texts and sounds lie apart in the space of a CLAP, if near enough for retrieval; AudioLDM, which was trained on
    embeddings of sounds, is asked for sounds by those of texts (Liu et al. 2023).

    Args:
        text_encoder: the text tower.
        audio_encoder: the audio tower, of the same files.

    Raises:
        InputError: when it is first used, if the two are of different files; or see the encoders.
    """

    def __init__(self, text_encoder: CLAPTextEncoder, audio_encoder: CLAPAudioEncoder) -> None:
        self.text_encoder, self.audio_encoder = text_encoder, audio_encoder

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return self.audio_encoder.width

    @property
    def audio_encoder_identity(self) -> str:
        """Of the encoder whose embeddings it gives."""
        return self.audio_encoder.identity

    @property
    def identity(self) -> str:
        """How texts are translated, and in brackets both encoders' identities."""
        return f"clap-texts+v{VERSION}({self.text_encoder.identity}, {self.audio_encoder.identity})"

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for."""
        card = self.text_encoder.describe()
        note = "no prior: a text's embedding stands for a sound's of the same CLAP"
        return ModelCard(PART, card.model, card.licence, card.weights, note)

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        load_models([self.text_encoder, self.audio_encoder])
        if self.text_encoder.towers is not self.audio_encoder.towers:
            raise InputError(
                f"sound_prior: its text_encoder is {self.text_encoder.identity} and its audio_encoder "
                f"{self.audio_encoder.identity}; name the same path or repository, and device, for both"
            )

    @torch.inference_mode()
    def predict(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts as sounds: unit vectors, float32 [texts, width].

        Raises:
            InputError: the towers are of different files.
        """
        self.load()
        return self.text_encoder.encode(texts) if texts else torch.empty(0, self.width)
