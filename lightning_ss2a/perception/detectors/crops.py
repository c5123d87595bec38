"""Picks the detections that count as sound sources, and cuts them out of their picture for an image encoder.

Beside the sources, a scene has its whole picture as the global source; it needs no crop.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.packages import media_package

CropShape = Literal["padded", "stretched"]
"""How a box, and a whole picture, becomes the square that encoders see. ``padded``: in the middle of a white square, so
that proportions stay. ``stretched``: to a square, as the paper's authors do."""

MOST_SOURCES = 16
"""The published run's ``top_k``, taken in the detector's order."""
SHORTEST_SIDE = 16.0
"""Pixels; what is smaller is a blur once it is as large as an encoder's input. The published run drops none."""


def shown_as(identity: str, shape: CropShape) -> str:
    """Names an image encoder together with the shape that it sees pictures in, which changes their embeddings.

    Its own identity stands for ``padded``.
    """
    return identity if shape == "padded" else f"{identity}-{shape}"


def pick_detections(
    detections: Detections, most: int = MOST_SOURCES, shortest_side: float = SHORTEST_SIDE
) -> Detections:
    """Picks the surest detections whose boxes are not tiny.

    Args:
        detections: of one picture, the surest first.
        most: how many, at most.
        shortest_side: boxes less wide or less high than this are tiny; in pixels of the picture as it was given.

    Raises:
        InputError: ``most`` is below 1.
    """
    if most < 1:
        raise InputError(f"most is {most}, needs at least 1")
    sides = (detections.boxes[:, 2:] - detections.boxes[:, :2]).amin(dim=1)
    picked = (sides >= shortest_side).nonzero().flatten()[:most]
    labels = tuple(detections.labels[i] for i in picked.tolist())
    return Detections(detections.boxes[picked], detections.scores[picked], labels)


def source_crops(image: np.ndarray, detections: Detections, shape: CropShape = "padded") -> list[np.ndarray]:
    """Cuts what was detected out of a picture: uint8 [side, side, 3] each, side being the longer of its box."""
    return [make_square(cut_box(image, box), shape) for box in detections.boxes.tolist()]


def cut_box(image: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """Cuts a box out of a picture, with every pixel that it touches: uint8 [height, width, 3].

    Args:
        image: uint8 [any, any, 3].
        box: left, top, right and bottom in pixels, inside the picture, not empty.
    """
    (left, top), (right, bottom) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    return image[top:bottom, left:right]


def make_square(image: np.ndarray, shape: CropShape) -> np.ndarray:
    """Makes a picture square, with a side as long as its longer one; see :data:`CropShape`."""
    return pad_to_square(image) if shape == "padded" else stretch_to_square(image)


def pad_to_square(image: np.ndarray) -> np.ndarray:
    """Puts a picture in the middle of a white square with its longer side."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def stretch_to_square(image: np.ndarray) -> np.ndarray:
    """Stretches a picture's shorter side to the longer one (bicubic)."""
    pillow = media_package("PIL.Image")
    return np.asarray(pillow.fromarray(image).resize((max(image.shape[:2]),) * 2, pillow.Resampling.BICUBIC))
