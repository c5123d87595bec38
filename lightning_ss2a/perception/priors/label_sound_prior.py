"""Turns texts into what YAMNet makes of sounds, by the names of AudioSet's classes."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.data import LabelHead
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, TextEncoder
from lightning_ss2a.perception.encoders.yamnet import YAMNet
from lightning_ss2a.perception.identity import exactly
from lightning_ss2a.perception.text_labels import LEAST_SIMILARITY, TextLabels
from lightning_ss2a.perception.weights import Described, ModelCard, load_models

PART = "sound prior"
MODEL = "sound-labels"
VERSION = 1
"""Goes up when texts are translated in another way."""


class LabelSoundPrior:
    """Points in the directions of the labels whose names are near to the text.

    The direction of a label is its row in the label head of the audio encoder, so that the nearest sounds are those
    that the head gives most of these labels; directions are weighted by a softmax of the names' similarity to the text,
    and what lies below 0 is cut off, since no sound has it. Nothing is trained. It knows the 521 labels of AudioSet
    that YAMNet has, no order of events and no counts, and words alone: "coffee machine" is near to "Drum machine".

    Measured on the bank of this project, by its own names of sounds: 208 of 269 are accepted, and of 397 sounds the
    nearest is one of that name for 24% of them, one of the five nearest for 41% (chance: 0.4% and 1.9%).

    Args:
        text_encoder: encodes the texts to come, and the names of the labels.
        audio_encoder: whose embeddings it gives, with a label head; None: a new YAMNet.
        nearest: labels that take part.
        temperature: of the softmax over them, in units of cosine similarity.
        least_similarity: texts that reach less with every label are refused.

    Raises:
        InputError: a number is out of its range, the audio encoder has no label head, or a package is missing.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        audio_encoder: AudioEncoder | None = None,
        nearest: int = 10,
        temperature: float = 0.1,
        least_similarity: float = LEAST_SIMILARITY,
    ) -> None:
        if nearest < 1:
            raise InputError(f"sound_prior.nearest is {nearest}, needs at least 1")
        if temperature <= 0:
            raise InputError(f"sound_prior.temperature is {temperature}, needs more than 0")
        self.text_encoder = text_encoder
        self.audio_encoder = audio_encoder or YAMNet()
        self.nearest, self.temperature, self.least_similarity = nearest, temperature, least_similarity

    @property
    def width(self) -> int:
        """Numbers in an embedding: the audio encoder's."""
        return self.audio_encoder.width

    @property
    def audio_encoder_identity(self) -> str:
        """Of the encoder whose embeddings it gives."""
        return self.audio_encoder.identity

    @cached_property
    def identity(self) -> str:
        """How texts are translated, and in brackets both encoders' identities."""
        least = exactly(self.least_similarity)
        preparation = f"nearest{self.nearest}-temperature{exactly(self.temperature)}-least{least}-v{VERSION}"
        return f"{MODEL}+{preparation}({self.text_encoder.identity}, {self.audio_encoder.identity})"

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for."""
        assert isinstance(self.audio_encoder, Described)
        card = self.audio_encoder.describe()
        return ModelCard(
            part=PART,
            model=MODEL,
            licence=card.licence,
            weights=card.weights,
            note="no trained prior: directions of the audio encoder's labels, weighted by how near their names are to "
            "the text; words that mean two things may take the wrong one",
        )

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        load_models([self.text_encoder, self.audio_encoder])

    @torch.inference_mode()
    def predict(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts as sounds: unit vectors without negative numbers, float32 [texts, width].

        Raises:
            InputError: a text is near to no label; says which text, and lists the nearest.
        """
        rows = [self._predict(text) for text in texts]
        return torch.stack(rows) if rows else torch.empty(0, self.width)

    def _predict(self, text: str) -> Tensor:
        (embedding,) = self.text_encoder.encode([text])
        weights, labels = self._labels.mixture(text, embedding, self.nearest, self.temperature)
        return normalize((weights @ self._head.weight[labels]).clamp(min=0), dim=0)

    @cached_property
    def _labels(self) -> TextLabels:
        return TextLabels(self.text_encoder, self._head.labels, self.least_similarity)

    @cached_property
    def _head(self) -> LabelHead:
        head = self.audio_encoder.label_head()
        if head is None:
            raise InputError(f"{self.audio_encoder.identity}: has no label head, which a sound prior reads texts by")
        return head
