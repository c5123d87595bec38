"""Turns the boxes that a network gives into detections; options and batches that detectors share."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.encoders.running import batches_alike

PART = "detector"


def check_thresholds(shares: Mapping[str, float], counts: Mapping[str, int]) -> None:
    """Checks the options by which detectors choose among boxes.

    Args:
        shares: by name, in [0, 1].
        counts: by name, at least 1.

    Raises:
        InputError: one is out of its range.
    """
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InputError(f"{PART}.{name} is {share}, needs 0 to 1")
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{PART}.{name} is {count}, needs at least 1")


def detections_of(
    boxes: Tensor, scores: Tensor, classes: Tensor, names: Sequence[str], image: np.ndarray, most: int
) -> Detections:
    """Makes detections of a network's boxes: cut to the picture, the surest first, none empty.

    Args:
        boxes: [found, 4], left, top, right and bottom in pixels.
        scores: [found].
        classes: [found], numbers of names.
        names: of the classes.
        image: the picture, [height, width, 3].
        most: detections that are kept; the surest.
    """
    height, width = image.shape[:2]
    boxes, scores, classes = boxes.float().cpu(), scores.float().cpu(), classes.long().cpu()
    boxes = boxes.clamp(min=boxes.new_zeros(4), max=boxes.new_tensor([width, height, width, height]))
    inside = ((boxes[:, 2:] > boxes[:, :2]).all(dim=1)).nonzero().flatten()
    order = inside[scores[inside].argsort(descending=True, stable=True)][:most]
    return Detections(boxes[order], scores[order], tuple(names[i] for i in classes[order].tolist()))


def batches_of_one_shape(images: Sequence[np.ndarray], batch_size: int) -> list[Sequence[int]]:
    """Groups pictures of equal height and width into batches of at most ``batch_size``; gives their numbers.

    Pictures of several shapes would be padded to the largest of them, and then what is found in one depends on the
    others.
    """
    return batches_alike([image.shape for image in images], batch_size)
