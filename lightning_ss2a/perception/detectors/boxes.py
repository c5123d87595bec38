"""Turns the boxes that a network gives into detections; options and batches that detectors share."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.protocols import Detections

PART = "detector"


def check_thresholds(conf: float, iou: float, max_det: int) -> None:
    """Checks the options by which detectors choose among boxes.

    Raises:
        InputError: one is out of its range.
    """
    for name, share in (("conf", conf), ("iou", iou)):
        if not 0 <= share <= 1:
            raise InputError(f"{PART}.{name} is {share}, needs 0 to 1")
    if max_det < 1:
        raise InputError(f"{PART}.max_det is {max_det}, needs at least 1")


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


def batches_of_one_shape(images: Sequence[np.ndarray], batch_size: int) -> Iterator[list[int]]:
    """Groups pictures of equal height and width into batches of at most ``batch_size``; gives their numbers.

    Pictures of several shapes would be padded to the largest of them, and then what is found in one depends on the
    others.
    """
    numbers = defaultdict(list)
    for number, image in enumerate(images):
        numbers[image.shape].append(number)
    for group in numbers.values():
        yield from (group[i : i + batch_size] for i in range(0, len(group), batch_size))
