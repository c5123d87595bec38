"""Finds things by their names with Grounding DINO (Liu et al. 2023), run by transformers (both Apache-2.0).

Shapes: B pictures, Q boxes that the network proposes for each (900), T tokens of a prompt (at most 256), C classes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
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

MODEL = "transformers/GroundingDINO"
FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
NARROWEST = 16
"""Times that a picture may be longer than broad; a narrower one has fewer places than the network proposes boxes (900),
at which it fails, so that it is made broader with the colour that is zero to the network."""
MEAN_COLOUR = (124, 116, 104)
"""Of ImageNet."""
VERSION = 1
"""Goes up when pictures or prompts are prepared, or boxes chosen, in another way."""


@dataclass(frozen=True)
class Prompt:
    """Some classes as one text, such as ``dog. acoustic guitar.``, and where its tokens are.

    Attributes:
        text: as the tokenizer reads it.
        classes: their numbers.
        spans: first token of each and the one after its last.
    """

    text: str
    classes: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def weights(self, tokens: int) -> Tensor:
        """Gives the weights [C, T] that average the tokens of each class."""
        weights = torch.zeros(len(self.spans), tokens)
        for row, (first, end) in zip(weights, self.spans, strict=True):
            row[first:end] = 1 / (end - first)
        return weights


class GroundingDINO(LoadedWhenUsed):
    """Finds things of the classes that it is asked for.

    They are asked for in as few prompts as hold them, each of which takes a pass over the pictures. A box is of the
    class whose tokens are, on average, the likeliest in it, and that is its score, as in the authors' evaluation on
    COCO. (The processor's own post-processing takes the likeliest token, and joins whatever tokens are likely into a
    label, which may then be none of the classes.)

    Args:
        labels: names of the classes, in the singular, such as ``acoustic guitar``.
        path: a folder laid out as the repository, see ``FILES``; None: the hub's.
        repository: on the hub.
        conf: the least score of a detection.
        iou: of two boxes of a class that overlap more than this, the less sure is dropped; 0: no two overlap at all, as
            in the published run of SS2A with its own detector.
        max_det: detections in a picture, at most.
        batch_size: pictures of one shape at once.
        device: where it runs.

    Raises:
        InputError: an option is out of its range, or a label empty or named twice; once the weights are used: they are
            missing or damaged, or a label is too long.
    """

    def __init__(
        self,
        labels: Sequence[str],
        path: str | None = None,
        repository: str = "IDEA-Research/grounding-dino-tiny",
        conf: float = 0.25,
        iou: float = 0.0,
        max_det: int = 64,
        batch_size: int = 4,
        device: str = "cpu",
    ) -> None:
        check_thresholds({"conf": conf, "iou": iou}, {"max_det": max_det})
        check_labels(labels)
        self.labels = tuple(labels)
        self.path, self.repository = path, repository
        self.conf, self.iou, self.max_det = conf, iou, max_det
        self.batch_size, self.device = check_batch_size(batch_size), device

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for; loads nothing."""
        status = find_weights(PART, self.path, self.repository, FILES)
        return ModelCard(PART, MODEL, "Apache-2.0", status, f"{len(self.labels)} classes, found by their names")

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._prompts

    @cached_property
    def identity(self) -> str:
        """Model, weights, classes and thresholds."""
        classes = hashlib.sha256("\n".join(self.labels).encode()).hexdigest()[:8]
        choice = f"conf{exactly(self.conf)}-iou{exactly(self.iou)}-most{self.max_det}-v{VERSION}"
        return identify(MODEL, self._weights.sha256() or "", f"{len(self.labels)}labels{classes}-{choice}")

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Finds things in RGB pictures, uint8 [height, width, 3] each: one result for each."""
        return self.detect_prepared(images, [*map(self.prepare, images)])

    def prepare(self, image: np.ndarray) -> Tensor:
        """Resizes a picture, uint8 [height, width, 3], to the side that the network sees: uint8 [3, height, width]."""
        picture = np.array(broadened(image))  # torch wants it writable
        resized: Tensor = self._processor.image_processor(
            picture, input_data_format="channels_last", do_rescale=False, do_normalize=False, return_tensors="pt"
        ).pixel_values[0]
        return resized

    @torch.inference_mode()
    def detect_prepared(self, images: Sequence[np.ndarray], prepared: Sequence[Tensor]) -> list[Detections]:
        """Finds things in pictures that :meth:`prepare` has resized."""
        found: dict[int, Detections] = {}
        for numbers in batches_of_one_shape(images, self.batch_size):
            batch = [prepared[number] for number in numbers]
            pixels = self._processor.image_processor(
                batch, input_data_format="channels_first", do_resize=False, return_tensors="pt"
            )
            answers = [self._answer(pixels.to(self.device), prompt, len(batch)) for prompt in self._prompts]
            for place, number in enumerate(numbers):
                boxes, scores, classes = (torch.cat([answer[part][place] for answer in answers]) for part in range(3))
                found[number] = self._chosen(boxes, scores, classes, images[number])
        return [found[number] for number in range(len(images))]

    def _answer(self, pixels: Any, prompt: Prompt, pictures: int) -> tuple[Tensor, Tensor, Tensor]:
        """Asks for the classes of a prompt: boxes [B, Q, 4], their scores [B, Q] and classes [B, Q].

        Boxes are centre, width and height as parts of the picture.
        """
        tokens = self._processor.tokenizer([prompt.text] * pictures, return_tensors="pt", return_token_type_ids=True)
        output = self._network(**pixels, **tokens.to(self.device))
        likely = output.logits.sigmoid()  # [B, Q, T]
        scores, places = (likely @ prompt.weights(likely.shape[-1]).to(likely).T).max(dim=-1)  # over [B, Q, C]
        return output.pred_boxes, scores, torch.tensor(prompt.classes, device=places.device)[places]

    def _chosen(self, boxes: Tensor, scores: Tensor, classes: Tensor, image: np.ndarray) -> Detections:
        """Chooses among the boxes of a picture, [boxes, 4], with their scores and classes [boxes]."""
        sure = scores > self.conf
        boxes, scores, classes = boxes[sure], scores[sure], classes[sure]
        height, width = broadened(image).shape[:2]
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)
        corners = corners * corners.new_tensor([width, height, width, height])
        kept = media_package("torchvision.ops", extra="paper").batched_nms(corners, scores, classes, self.iou)
        return detections_of(corners[kept], scores[kept], classes[kept], self.labels, image, self.max_det)

    @cached_property
    def _weights(self) -> WeightsStatus:
        return obtain_weights(PART, self.path, self.repository, FILES)

    @cached_property
    def _processor(self) -> Any:
        return load_processor(self._weights.location)

    @cached_property
    def _network(self) -> Any:
        return load_network(self._weights.location).eval().requires_grad_(False).to(self.device)

    @cached_property
    def _prompts(self) -> list[Prompt]:
        return pack_labels(self.labels, self._processor.tokenizer, self._network.config.max_text_len)


def broadened(image: np.ndarray) -> np.ndarray:
    """Makes a narrow picture broad enough for the network, at its right or at its bottom."""
    height, width = image.shape[:2]
    least = -(-max(height, width) // NARROWEST)
    if min(height, width) >= least:
        return image
    broad = np.full((max(height, least), max(width, least), 3), MEAN_COLOUR, np.uint8)
    broad[:height, :width] = image
    return broad


def check_labels(labels: Sequence[str]) -> None:
    """Checks the names of classes.

    Raises:
        InputError: there are none, or one is empty or there twice, upper and lower case being the same.
    """
    if not labels:
        raise InputError(f"{PART}.labels is empty, needs the names of what is to be found")
    phrases = [_phrase(label) for label in labels]
    for label, phrase in zip(labels, phrases, strict=True):
        if not phrase:
            raise InputError(f"{PART}.labels: {label!r} names nothing")
        if phrases.count(phrase) > 1:
            raise InputError(f"{PART}.labels: {label!r} is there twice")


def pack_labels(labels: Sequence[str], tokenizer: Any, most_tokens: int) -> list[Prompt]:
    """Packs the names of classes into prompts, in their order.

    Args:
        labels: names of the classes.
        tokenizer: puts one token before a text and one behind it, and makes one of each full stop.
        most_tokens: of a prompt; the network cuts off what is longer.

    Raises:
        InputError: a name alone is longer.
    """
    phrases = [_phrase(label) for label in labels]
    lengths = [len(tokenizer(phrase, add_special_tokens=False).input_ids) for phrase in phrases]
    prompts: list[Prompt] = []
    classes: list[int] = []
    spans: list[tuple[int, int]] = []
    end = 1  # token 0 is [CLS]
    for number, length in enumerate(lengths):
        if length + 3 > most_tokens:  # [CLS], full stop, [SEP]
            raise InputError(f"{PART}.labels: {labels[number]!r} has {length} tokens, needs at most {most_tokens - 3}")
        if end + length + 2 > most_tokens:
            prompts.append(_prompt(phrases, classes, spans))
            classes, spans, end = [], [], 1
        classes.append(number)
        spans.append((end, end + length))
        end += length + 1
    return [*prompts, _prompt(phrases, classes, spans)]


def _prompt(phrases: Sequence[str], classes: Sequence[int], spans: Sequence[tuple[int, int]]) -> Prompt:
    text = " ".join(f"{phrases[number]}." for number in classes)
    return Prompt(text, tuple(classes), tuple(spans))


def _phrase(label: str) -> str:
    """Writes a label as the network was taught: in lower case, without the marks that part phrases."""
    return " ".join(label.lower().replace(".", " ").replace("?", " ").split())


def load_processor(folder: Path) -> Any:
    """Loads what prepares pictures and texts.

    Raises:
        InputError: the files are damaged.
    """
    try:
        return media_package("transformers", extra="paper").GroundingDinoProcessor.from_pretrained(
            folder, local_files_only=True
        )
    except InputError:
        raise
    except Exception as error:  # transformers passes on what json, tokenizers and its own checks raise
        raise InputError(f"{folder}: cannot be loaded as a GroundingDinoProcessor ({one_line(error)})") from error


def load_network(folder: Path) -> nn.Module:
    """Loads the network.

    Raises:
        InputError: the files are damaged, or hold fewer or other weights than the network has.
    """
    architecture = media_package("transformers", extra="paper").GroundingDinoForObjectDetection
    try:
        network, info = architecture.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:
        raise InputError(
            f"{folder}: cannot be loaded as a GroundingDinoForObjectDetection ({one_line(error)})"
        ) from error
    if info["missing_keys"]:
        raise InputError(f"{folder}: lacks weights of Grounding DINO: {', '.join(sorted(info['missing_keys']))}")
    return network
