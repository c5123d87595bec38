"""Defines what builders and generation need of a detector; any class with these members serves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """What a detector found in a picture, the surest first.

    Attributes:
        boxes: float32 [found, 4], left, top, right and bottom in pixels of the picture, inside it, none empty.
        scores: float32 [found], in [0, 1], falling.
        labels: names of what was found.
    """

    boxes: Tensor
    scores: Tensor
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@runtime_checkable
class Detector(Protocol):
    """Finds things in pictures.

    Attributes:
        identity: model, sha256 of its weights, preparation and thresholds.
        labels: every name that it can give.
    """

    identity: str
    labels: tuple[str, ...]

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Finds things in RGB pictures, uint8 [height, width, 3] each, of any size: one result for each picture.

        What is found in a picture depends on that picture alone, whatever batch it is in.
        """


@runtime_checkable
class PreparingDetector(Detector, Protocol):
    """A detector that takes pictures that were prepared elsewhere: by processes that have no network."""

    def prepare(self, image: np.ndarray) -> Tensor:
        """Prepares an RGB picture, uint8 [height, width, 3], for the network; small, since it travels.

        It is pickled on its way to other processes, and should not bring the network with it.
        """

    def detect_prepared(self, images: Sequence[np.ndarray], prepared: Sequence[Tensor]) -> list[Detections]:
        """Finds, bit for bit, what :meth:`detect` finds in pictures, of which it needs no more than their sizes."""
