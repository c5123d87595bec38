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
