"""Finds which labels of a list a text means, by the similarity of their embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.protocols import TextEncoder

LEAST_SIMILARITY = 0.5
"""Of a text to a label that it means: with MiniLM, texts of everyday things and sounds reach 0.55 and more with the
right label, and texts that mean no label stay below 0.45."""
LISTED = 5
"""Labels that an error names."""


@dataclass(frozen=True)
class Match:
    """A label that a text means.

    Attributes:
        label: the label.
        index: its number in the list.
        similarity: cosine of the text and the label.
    """

    label: str
    index: int
    similarity: float


class TextLabels:
    """Finds labels for texts. It knows words alone: "coffee machine" is near to AudioSet's "Drum machine".

    A label that lists several names, such as "Baby cry, infant cry", is as near as the nearest of them or all together.

    Args:
        encoder: of texts and labels.
        labels: the list, such as AudioSet's (``YAMNet().label_head().labels``). Encoded when first needed.
        least_similarity: texts that reach less with every label are refused.

    Raises:
        InputError: there are no labels, or the similarity is not one.
    """

    def __init__(self, encoder: TextEncoder, labels: Sequence[str], least_similarity: float = LEAST_SIMILARITY) -> None:
        if not labels:
            raise InputError("labels: the list is empty")
        if not -1 <= least_similarity <= 1:
            raise InputError(f"least_similarity is {least_similarity}, needs -1 to 1")
        self.encoder, self.labels, self.least_similarity = encoder, tuple(labels), least_similarity

    def labels_of_text(self, text: str, most: int = 3) -> list[Match]:
        """Finds the labels that a text means, the nearest first: at least one, at most ``most``.

        Raises:
            InputError: no label is near enough; lists the nearest. Or ``most`` is below 1.
        """
        if most < 1:
            raise InputError(f"most is {most}, needs at least 1")
        (similarities,) = self.similarities((text,), self.encoder.encode([text]))
        nearest = self._nearest(similarities, most)
        return [match for match in nearest if match.similarity >= self.least_similarity]

    def similarities(self, texts: Sequence[str], embeddings: Tensor) -> Tensor:
        """Computes the similarity of each text to each label: [texts, labels].

        Args:
            texts: for messages.
            embeddings: of the texts, by the encoder, of any length: [texts, width].

        Raises:
            InputError: a text is near to no label; lists the nearest. Or the embeddings are another encoder's.
        """
        if embeddings.shape != (len(texts), self.encoder.width):
            shape = [len(texts), self.encoder.width]
            raise InputError(f"embeddings of texts are {list(embeddings.shape)}, {self.encoder.identity} gives {shape}")
        names, owners = self._names
        by_name = normalize(embeddings.float(), dim=1) @ names.T
        lowest = torch.full((len(texts), len(self.labels)), -1.0)
        similarities = lowest.scatter_reduce(1, owners.expand(len(texts), -1), by_name, "amax")
        for text, row in zip(texts, similarities, strict=True):
            if row.max() < self.least_similarity:
                near = ", ".join(f"{match.label} ({match.similarity:.2f})" for match in self._nearest(row, LISTED))
                raise InputError(f"text {text!r}: means no label (needs {self.least_similarity:g}); near are {near}")
        return similarities

    def mixture(self, text: str, embedding: Tensor, nearest: int, temperature: float) -> tuple[Tensor, Tensor]:
        """Describes a text by its nearest labels: their weights, which sum to 1, and their numbers.

        Args:
            text: for messages.
            embedding: of the text, by the encoder, of any length: [width].
            nearest: labels, at most.
            temperature: of a softmax over their similarities.

        Raises:
            InputError: see :meth:`similarities`.
        """
        (similarities,) = self.similarities((text,), embedding[None])
        values, labels = similarities.topk(min(nearest, len(self.labels)))
        return (values / temperature).softmax(dim=0), labels

    def _nearest(self, similarities: Tensor, most: int) -> list[Match]:
        values, places = similarities.sort(descending=True, stable=True)
        found: dict[str, Match] = {}  # a name that two labels share is listed once
        for value, index in zip(values.tolist(), places.tolist(), strict=True):
            found.setdefault(self.labels[index], Match(self.labels[index], index, value))
            if len(found) == most:
                break
        return list(found.values())

    @cached_property
    def _names(self) -> tuple[Tensor, Tensor]:
        """Embeds every name of every label: unit vectors [names, width], and the numbers of their labels [names]."""
        names = [(index, name) for index, label in enumerate(self.labels) for name in names_of(label)]
        return self.encoder.encode([name for _, name in names]), torch.tensor([index for index, _ in names])


def names_of(label: str) -> list[str]:
    """Splits a label that lists several names: the whole of it, and each of them."""
    parts = [part.strip() for part in label.split(",")]
    return list(dict.fromkeys([label, *(part for part in parts if part)]))
