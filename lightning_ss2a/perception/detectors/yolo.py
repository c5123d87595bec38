"""Finds things with YOLOv8, run by ultralytics (AGPL-3.0: an extra of its own, imported by this module alone).

Its network, its resizing and its suppression are used, its predictor is not: that one reports usage, keeps a folder of
runs, and leaves the later pictures of a slow batch without boxes (see :meth:`YOLO._suppressed`).
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.detectors.boxes import PART, batches_of_one_shape, check_thresholds, detections_of
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.encoders.running import LoadedWhenUsed, check_batch_size
from lightning_ss2a.perception.identity import exactly, identify
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, find_weights, obtain_weights

MODEL = "ultralytics/YOLO"
FILES = ("yolov8x-oiv7.pt",)
STRIDE = 32
"""Pixels between places of the coarsest feature map; sides of the network's input are multiples of it."""
VERSION = 1
"""Goes up when pictures are prepared or boxes chosen in another way."""


class YOLO(LoadedWhenUsed):
    """Finds things of the classes that a YOLO checkpoint knows; the published one those of Open Images V7.

    The defaults are those of the published run of SS2A, whose sources the published weights saw. Boxes suppress only
    boxes of their own class: the Person, the Man and the Face of one person all stay. The file is read without running
    what may be pickled in it beside known layers.

    Args:
        path: of the checkpoint, or of its folder; ultralytics publishes ``yolov8x-oiv7.pt`` among its assets.
        repository: on the hub; empty: none.
        image_side: pixels of the longer side that the network sees, a multiple of 32.
        conf: the least score of a detection.
        iou: of two boxes of a class that overlap more than this, the less sure is dropped; 0: no two overlap at all.
        max_det: detections in a picture, at most.
        augment: look at three sizes of a picture, one of them mirrored; takes about twice the time.
        batch_size: pictures of one shape at once.
        device: where it runs.

    Raises:
        InputError: an option is out of its range; once the weights are used: they are missing or no YOLO detector, or
            ultralytics is not installed.
    """

    def __init__(
        self,
        path: str | None = None,
        repository: str = "",
        image_side: int = 640,
        conf: float = 0.25,
        iou: float = 0.0,
        max_det: int = 64,
        augment: bool = True,
        batch_size: int = 8,
        device: str = "cpu",
    ) -> None:
        if image_side < STRIDE or image_side % STRIDE:
            raise InputError(f"{PART}.image_side is {image_side}, needs a multiple of {STRIDE}")
        check_thresholds({"conf": conf, "iou": iou}, {"max_det": max_det})
        self.path, self.repository = path, repository
        self.image_side, self.conf, self.iou, self.max_det, self.augment = image_side, conf, iou, max_det, augment
        self.batch_size, self.device = check_batch_size(batch_size), device

    def describe(self) -> ModelCard:
        """Says what it is and where its file is looked for; loads nothing."""
        status = find_weights(PART, self.path, self.repository, FILES)
        return ModelCard(PART, MODEL, "AGPL-3.0 (weights and package)", status, "the 601 classes of Open Images V7")

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._network

    @cached_property
    def identity(self) -> str:
        """Model, weights, size of pictures and thresholds."""
        choice = f"side{self.image_side}-conf{exactly(self.conf)}-iou{exactly(self.iou)}-most{self.max_det}"
        return identify(MODEL, self._weights.sha256() or "", f"{choice}{'-augment' * self.augment}-v{VERSION}")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes, which are in the checkpoint."""
        return tuple(name for _, name in sorted(self._network.names.items()))

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Finds things in RGB pictures, uint8 [height, width, 3] each: one result for each."""
        return self.detect_prepared(images, [*map(self.prepare, images)])

    def prepare(self, image: np.ndarray) -> Tensor:
        """Resizes a picture, uint8 [height, width, 3], on grey: uint8 RGB, its sides multiples of 32."""
        # Ultralytics' own loaders read BGR and turn it to RGB for the network; RGB pictures need neither.
        resize = self._ultralytics.augment.LetterBox(self.image_side, auto=True, stride=STRIDE)
        return torch.from_numpy(resize(image=image))

    @torch.inference_mode()
    def detect_prepared(self, images: Sequence[np.ndarray], prepared: Sequence[Tensor]) -> list[Detections]:
        """Finds things in pictures that :meth:`prepare` has resized."""
        found: dict[int, Detections] = {}
        for numbers in batches_of_one_shape(images, self.batch_size):
            inputs = self._inputs([prepared[number] for number in numbers])  # [batch, 3, height, width]
            raw = self._network(inputs, augment=self.augment)[0]  # [batch, 4 + classes, candidates]
            for number, candidates in zip(numbers, raw, strict=True):
                found[number] = self._suppressed(candidates, inputs.shape[2:], images[number])
        return [found[number] for number in range(len(images))]

    def _inputs(self, resized: Sequence[Tensor]) -> Tensor:
        """Makes the network's input of resized pictures of one shape: [batch, 3, height, width] in 0 to 1."""
        return torch.stack([*resized]).to(self.device).permute(0, 3, 1, 2).float() / 255

    def _suppressed(self, candidates: Tensor, shape: torch.Size, image: np.ndarray) -> Detections:
        """Chooses among the boxes of a picture: [4 + classes, candidates] of an input of this shape.

        One picture at a time: of a batch, the suppression leaves the pictures without boxes that are not done within
        2 s and 0.05 s a picture, with nothing but a warning.
        """
        nms, ops = self._ultralytics.nms, self._ultralytics.ops
        (chosen,) = nms.non_max_suppression(candidates[None], self.conf, self.iou, max_det=self.max_det)
        boxes = ops.scale_boxes(shape, chosen[:, :4], image.shape)
        return detections_of(boxes, chosen[:, 4], chosen[:, 5], self.labels, image, self.max_det)

    @cached_property
    def _weights(self) -> WeightsStatus:
        return obtain_weights(PART, self.path, self.repository, FILES)

    @cached_property
    def _ultralytics(self) -> SimpleNamespace:
        return import_ultralytics()

    @cached_property
    def _network(self) -> Any:
        return load_network(self._weights.location).to(self.device)


def load_network(file: Path) -> nn.Module:
    """Loads the network of a YOLO checkpoint, its batch norms folded into its convolutions.

    Raises:
        InputError: it is damaged, holds other things than known layers, or does not find boxes.
    """
    try:
        checkpoint, _ = import_ultralytics().tasks.torch_safe_load(file, safe_only=True)
        network = (checkpoint.get("ema") or checkpoint["model"]).float()
    except Exception as error:  # ultralytics and torch raise TypeError, KeyError, UnpicklingError, AttributeError, ...
        raise InputError(f"{file}: cannot be loaded as a YOLO checkpoint ({one_line(error)})") from error
    if type(network).__name__ != "DetectionModel" or getattr(network, "end2end", False):
        raise InputError(f"{file}: holds a {type(network).__name__}, needs a YOLOv8 DetectionModel")
    return network.fuse(verbose=False).eval().requires_grad_(False)


def import_ultralytics() -> SimpleNamespace:
    """Imports the modules of ultralytics that are used here: tasks, augment, nms and ops.

    Raises:
        InputError: it is not installed.
    """
    with _nothing_left_behind():
        media_package("torchvision", extra="yolo")  # its suppression is used where it was imported before: be it always
        names = ("nn.tasks", "data.augment", "utils.nms", "utils.ops")
        modules = {name.split(".")[1]: media_package(f"ultralytics.{name}", extra="yolo") for name in names}
    return SimpleNamespace(**modules)


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Keeps ultralytics' import to itself.

    It would write settings into the user's home, ask the network whether it is online (and report usage if so, unless
    ``sync`` is off in those settings), say so, set ``OMP_NUM_THREADS``, and replace ``torch.save`` by its own and
    Pillow's ``open`` by one that looks for another package where a file is no picture.
    """
    if "ultralytics" in sys.modules:
        yield
        return
    pillow = media_package("PIL.Image")
    environment, save, open_image = dict(os.environ), torch.save, pillow.open
    with TemporaryDirectory() as folder:
        os.environ.update(YOLO_CONFIG_DIR=folder, YOLO_OFFLINE="True", YOLO_AUTOINSTALL="False", YOLO_VERBOSE="False")
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)
            torch.save = save
            pillow.open = open_image  # type: ignore[attr-defined]  # of a module known by its name alone
