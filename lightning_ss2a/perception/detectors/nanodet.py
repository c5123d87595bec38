"""Finds the 80 things of COCO with NanoDet-g, whose weights are in this package."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.boxes import PART, check_thresholds, detections_of
from lightning_ss2a.perception.detectors.coco import COCO_LABELS
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.detectors.suppression import suppress
from lightning_ss2a.perception.encoders.running import LoadedWhenUsed
from lightning_ss2a.perception.identity import exactly, identify, sha256_of
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, find_weights

MODEL = "nanodet-g-416-coco"
FOLDER = Path(__file__).parent / "nanodet_files"
MODEL_FILE = "nanodet.onnx"
VERSION = 1
"""Goes up when pictures are prepared or boxes chosen in another way."""

SIDE = 416
STRIDES = (8, 16, 32)
"""Pixels between places of each feature map."""
BINS = 11
"""Of the distribution over the distance to each side of a box: 0 to 10 strides."""
BGR_MEAN = (103.53, 116.28, 123.675)
BGR_STD = (57.375, 57.12, 58.395)
"""Of pixels within 0 to 255, blue first."""

_SCORES = ("Identity", "Identity_1", "Identity_2")
_DISTANCES = ("Identity_3", "Identity_4", "Identity_5")


class NanoDet(LoadedWhenUsed):
    """Finds things of 80 classes, each with a box and the likeliest of the names; one thing has one box.

    A picture is made to fit 416 x 416 with its proportions kept and black beside it, as in training. Boxes suppress
    each other whatever their names, since each stands for a sound source. 12 pictures a second on one core.

    Args:
        threshold: the least score of a detection. Of 120 stamps in 60 pictures, 0.3 finds 92%, and 11% of its boxes are
            around something else; 0.4 finds 81%, with 2%; 0.5 finds 61%, with none (``benchmarks/detector.py``). Of the
            boxes that are right, a quarter has a wrong name.
        overlap: intersection over union above which the less sure of two boxes is dropped.
        most: detections in a picture, at most.
        path: of another file, or of the folder of a ``nanodet.onnx``; None: the one in this package.
        threads: threads that it runs on.

    Raises:
        InputError: a number is out of its range; once it is used: onnxruntime or the file is missing, or the file is
            another model.
    """

    labels: tuple[str, ...] = COCO_LABELS

    def __init__(
        self,
        threshold: float = 0.4,
        overlap: float = 0.5,
        most: int = 64,
        path: str | None = None,
        threads: int = 1,
    ) -> None:
        check_thresholds({"threshold": threshold, "overlap": overlap}, {"most": most})
        self.threshold, self.overlap, self.most = threshold, overlap, most
        self.path, self.threads = path, threads

    @cached_property
    def identity(self) -> str:
        """Model, sha256 of its weights, preparation and thresholds.

        Raises:
            InputError: the file is missing.
        """
        preparation = (
            f"letterbox{SIDE}-score{exactly(self.threshold)}-iou{exactly(self.overlap)}-most{self.most}-v{VERSION}"
        )
        return identify(MODEL, sha256_of(self._find().location), preparation)

    def describe(self) -> ModelCard:
        """Says what it is and where its file is looked for."""
        return ModelCard(
            part=PART,
            model=MODEL,
            licence="Apache-2.0 (NanoDet), MIT (its conversion to TensorFlow.js)",
            weights=self._find(),
            note="80 everyday things of COCO, in photographs; misses small and crowded ones, knows few animals, no "
            "instruments and no tools, and names drawings wrongly",
        )

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._session

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Finds things in RGB pictures, uint8 [height, width, 3] each, of any size: one result for each picture."""
        return self.detect_prepared(images, [*map(self.prepare, images)])

    @staticmethod
    def prepare(image: np.ndarray) -> Tensor:
        """Prepares a picture, uint8 [height, width, 3]: in a black square, uint8 [416, 416, 3]."""
        return torch.from_numpy(letterbox(image))

    def detect_prepared(self, images: Sequence[np.ndarray], prepared: Sequence[Tensor]) -> list[Detections]:
        """Finds things in pictures that :meth:`prepare` has prepared."""
        return [self._detect(image, square.numpy()) for image, square in zip(images, prepared, strict=True)]

    def _detect(self, image: np.ndarray, square: np.ndarray) -> Detections:
        size, corner = place_in_square(image)
        scale = torch.tensor([size[0] / image.shape[1], size[1] / image.shape[0]])
        outputs = self._session.run([*_SCORES, *_DISTANCES], {"image": prepare_image(square)})
        scores, classes = torch.from_numpy(np.concatenate(outputs[:3], axis=1)[0]).max(dim=1)
        boxes = decode_boxes([torch.from_numpy(distances[0]) for distances in outputs[3:]])
        boxes = (boxes - torch.tensor(corner).repeat(2)) / scale.repeat(2)
        sure = (scores >= self.threshold).nonzero().flatten()
        picked = sure[suppress(boxes[sure], scores[sure], self.overlap)]
        return detections_of(boxes[picked], scores[picked], classes[picked], self.labels, image, self.most)

    def _find(self) -> WeightsStatus:
        return find_weights(PART, str(FOLDER) if self.path is None else self.path, "", (MODEL_FILE,))

    @cached_property
    def _session(self) -> Any:
        file = self._find().location
        runtime = media_package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = self.threads
        try:
            session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common class
            raise InputError(f"{file}: not an ONNX model ({error})") from error
        names = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
        if names != {"image", *_SCORES, *_DISTANCES}:
            raise InputError(f"{file}: not the NanoDet of make lite-detector")
        return session


def place_in_square(image: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Places a picture, [height, width, 3], in the middle of a square of 416 pixels, with its proportions kept.

    Returns:
        its width and height there; where its left and its top are.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    size = max(round(SIDE * width / longest), 1), max(round(SIDE * height / longest), 1)
    return size, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)


def letterbox(image: np.ndarray) -> np.ndarray:
    """Makes a picture, uint8 [height, width, 3], fit into a black square, uint8 [416, 416, 3].

    It is resized with Pillow's bilinear filter, which sees every pixel of a large picture.
    """
    size, (left, top) = place_in_square(image)
    pillow = media_package("PIL.Image")
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    square[top : top + size[1], left : left + size[0]] = pillow.fromarray(image).resize(
        size, pillow.Resampling.BILINEAR
    )
    return square


def prepare_image(pixels: np.ndarray) -> np.ndarray:
    """Prepares a square for the network: RGB uint8 [side, side, 3] to BGR float32 [1, 3, side, side]."""
    blue_first = pixels[..., ::-1].astype(np.float32)
    standard = (blue_first - np.array(BGR_MEAN, np.float32)) / np.array(BGR_STD, np.float32)
    return np.ascontiguousarray(standard.transpose(2, 0, 1)[None])


def decode_boxes(distances: Sequence[Tensor]) -> Tensor:
    """Turns the network's distributions into boxes, in pixels of the square.

    At each place of a feature map the distance to each side of a box is the mean of a distribution over 0 to 10
    strides (generalized focal loss, arXiv 2006.04388), from the middle of the place.

    Args:
        distances: of each stride, [places, 4 x 11], row by row from the top.

    Returns:
        [all places, 4], left, top, right and bottom; may reach outside the square.
    """
    boxes = []
    for stride, logits in zip(STRIDES, distances, strict=True):
        middles = (torch.arange(SIDE // stride) + 0.5) * stride
        y, x = torch.meshgrid(middles, middles, indexing="ij")
        middle = torch.stack([x.flatten(), y.flatten()], dim=1)  # [places, 2]
        sides = logits.reshape(-1, 4, BINS).softmax(dim=-1) @ torch.arange(BINS, dtype=torch.float32) * stride
        boxes.append(torch.cat([middle - sides[:, :2], middle + sides[:, 2:]], dim=1))
    return torch.cat(boxes)
