"""Turns texts into what EfficientNet-lite0 makes of pictures, by the names of ImageNet's classes."""

from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.efficientnet_lite import EfficientNetLite
from lightning_ss2a.perception.encoders.imagenet_labels import imagenet_labels
from lightning_ss2a.perception.encoders.protocols import TextEncoder, TextFeatures
from lightning_ss2a.perception.identity import exactly, identify
from lightning_ss2a.perception.text_labels import LEAST_SIMILARITY, TextLabels
from lightning_ss2a.perception.weights import ModelCard, load_models

PART = "prior"
MODEL = "imagenet-labels"
VERSION = 1
"""Goes up when texts are translated in another way."""

STEP = 16.0
"""Away from the mean picture. Where that leads below 0 it is cut off, which leaves a distance of 12.8 on average and a
length of 15.7. Pictures have as much: 13.0 and 14.6 those of 115 photographs, 13.7 and 15.5 the demo's."""
LARGEST = 6.0
"""Of an embedding's numbers, which are means of rectified ones: 0 to 6."""


class LabelPrior:
    """Moves the mean picture in the directions of the classes whose names are near to the text.

    The direction of a class is its row in the classifier of the image encoder, less the mean row; directions are
    weighted by a softmax of the names' similarity to the text, and their sum is made so long that the result is as far
    from the mean picture as pictures are. Nothing is trained. It knows ImageNet's 1000 classes and what lies between
    them, no scenes, no relations and no counts.

    Measured on the demo's annotated pictures, by cosines of what lies beyond the mean picture: 100 of 113 names are
    accepted; the nearest of 151 pictures is one of that name for 55% of them (chance: 1%), and pictures of the name are
    at 0.20, others at 0.02. Of the 33 names that are ImageNet's own it is 97% (chance: 3%).

    Args:
        text_encoder: encodes the texts to come, and the names of the classes.
        image_encoder: whose embeddings it gives; None: a new one.
        nearest: classes that take part.
        temperature: of the softmax over them, in units of cosine similarity.
        least_similarity: texts that reach less with every class are refused.

    Raises:
        InputError: a number is out of its range, or a package is missing.
    """

    width = EfficientNetLite.width

    def __init__(
        self,
        text_encoder: TextEncoder,
        image_encoder: EfficientNetLite | None = None,
        nearest: int = 10,
        temperature: float = 0.1,
        least_similarity: float = LEAST_SIMILARITY,
    ) -> None:
        if not 1 <= nearest <= len(imagenet_labels()):
            raise InputError(f"{PART}.nearest is {nearest}, needs 1 to {len(imagenet_labels())}")
        if temperature <= 0:
            raise InputError(f"{PART}.temperature is {temperature}, needs more than 0")
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder or EfficientNetLite()
        self.nearest, self.temperature = nearest, temperature
        self.labels = TextLabels(text_encoder, imagenet_labels(), least_similarity)

    @cached_property
    def identity(self) -> str:
        """Model, weights of the classifier, how texts are translated, and in brackets both encoders' identities."""
        least = self.labels.least_similarity
        preparation = f"nearest{self.nearest}-temperature{exactly(self.temperature)}-least{exactly(least)}-v{VERSION}"
        model = identify(MODEL, self.image_encoder.weights_sha256, preparation)
        return f"{model}({self.text_encoder.identity}, {self.image_encoder.identity})"

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for."""
        card = self.image_encoder.describe()
        return ModelCard(
            part=PART,
            model=MODEL,
            licence=f"{card.licence}; names of the classes MIT",
            weights=card.weights,
            note="no trained prior: directions of ImageNet's 1000 classes, weighted by how near their names are to the "
            "text; things alone, no scenes, and words that mean two things may take the wrong one",
        )

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        load_models([self.text_encoder])

    @torch.inference_mode()
    def predict(self, features: TextFeatures) -> Tensor:
        """Embeds texts as pictures: float32 [texts, 1280], within 0 to 6; the same text gives the same in any batch.

        Raises:
            InputError: a text is near to no class; says which text, and lists the nearest. Or the features are those of
                another text encoder.
        """
        rows = [self._predict(text, row) for text, row in zip(features.texts, features.embeddings, strict=True)]
        return torch.stack(rows) if rows else torch.empty(0, self.width)

    def _predict(self, text: str, embedding: Tensor) -> Tensor:
        weights, classes = self.labels.mixture(text, embedding, self.nearest, self.temperature)
        mean, directions = self._pictures
        direction = weights @ directions[classes]
        return (mean + STEP * normalize(direction, dim=0)).clamp(0, LARGEST)

    @cached_property
    def _pictures(self) -> tuple[Tensor, Tensor]:
        """The mean picture [1280], and the direction of each class [1000, 1280]."""
        weight = self.image_encoder.class_weights()
        return self.image_encoder.mean_embedding(), weight - weight.mean(dim=0)
