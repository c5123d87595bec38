"""Perceives prepared media with all models: the module that Lightning's ``Trainer.predict`` runs on every device."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_ss2a.builders.engine.media_worker import MediaNeeds, PreparedItem, PreparedPart
from lightning_ss2a.builders.engine.packing import Packed
from lightning_ss2a.builders.engine.parts import Part, PerceivedItem, Region
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.crops import cut_box, pick_detections
from lightning_ss2a.perception.detectors.protocols import Detections, Detector, PreparingDetector
from lightning_ss2a.perception.encoders.protocols import (
    AudioEncoder,
    ImageEncoder,
    PreparingAudioEncoder,
    PreparingImageEncoder,
    TextEncoder,
    TextToAudioPrior,
    TextToImagePrior,
)
from lightning_ss2a.perception.weights import load_models

Input = TypeVar("Input")
Output = TypeVar("Output")
Outcome: TypeAlias = Output | InputError
"""What a model gives for one input, or why it gives nothing."""

SEEN = {"pairs": "visual", "scenes": "global_visual", "videos": "frames"}
"""Field of what is seen as a whole, by kind."""


@dataclass(frozen=True)
class Stack:
    """The models that perceive; see ``configs/perception/``.

    Attributes:
        image_encoder: turns pictures into embeddings.
        audio_encoder: turns sounds into embeddings.
        detector: finds the sources of scenes.
        text_encoder: reads the texts that stand in for pictures; None: the prior's own.
        prior: turns these into embeddings of pictures.
        sound_prior: turns texts into embeddings of sounds, for generation; None: texts are read by ``prior``.
    """

    image_encoder: ImageEncoder
    audio_encoder: AudioEncoder
    detector: Detector | None = None
    text_encoder: TextEncoder | None = None
    prior: TextToImagePrior | None = None
    sound_prior: TextToAudioPrior | None = None

    @property
    def models(self) -> dict[str, Any]:
        """The models that there are, by the name of their option."""
        every = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: model for name, model in every.items() if model is not None}

    @property
    def reader(self) -> TextEncoder | None:
        """What reads the texts."""
        own: TextEncoder | None = getattr(self.prior, "text_encoder", None)
        return self.text_encoder or own

    @property
    def every_model(self) -> list[Any]:
        """The models, with those inside others."""
        inner = [getattr(self.prior, name, None) for name in ("text_encoder", "image_encoder")]
        inner += [getattr(self.sound_prior, name, None) for name in ("text_encoder", "audio_encoder")]
        found = {id(model): model for model in (*self.models.values(), *inner) if model is not None}
        return [*found.values()]


class _Perception:
    """A part of the list while its fields are filled, one after the other."""

    def __init__(self, part: PreparedPart) -> None:
        self.part = part
        self.rejected = {item.number: item.problem for item in part.items if item.problem}
        self.fields: dict[int, dict[str, np.ndarray]] = {item.number: {} for item in part.items}
        self.regions: dict[int, tuple[Region, ...]] = {item.number: item.regions for item in part.items}

    def usable(self) -> list[PreparedItem]:
        """The items that nothing is wrong with so far."""
        return [item for item in self.part.items if item.number not in self.rejected]

    def keep(self, item: PreparedItem, field: str, outcomes: Sequence[Outcome[np.ndarray]]) -> None:
        """Keeps a field of an item, [things, width]; or rejects it, if one of the things has no embedding."""
        embeddings = [outcome for outcome in outcomes if isinstance(outcome, np.ndarray)]
        if len(embeddings) == len(outcomes):
            self.fields[item.number][field] = np.stack(embeddings)
        else:
            self.rejected[item.number] = next(str(outcome) for outcome in outcomes if isinstance(outcome, InputError))

    def finish(self) -> Part:
        items = [
            PerceivedItem(item.number, tuple(item.content), self.fields[item.number], self.regions[item.number])
            for item in self.usable()
        ]
        return Part(self.part.number, tuple(items), dict(sorted(self.rejected.items())))


class PerceptionModule(LightningModule):
    """Turns prepared media into embeddings, a part of the list at a time.

    What becomes of an item depends on its part alone, whatever process, and whatever device of a type, has it.

    Args:
        stack: the models.
        needs: what the workers prepare.
        most_sources: sources of a scene, at most; the surest.
        threads: of a processor's computations; the last bits of a sum depend on their number.

    Attributes:
        model_seconds: time spent in the models so far.
    """

    def __init__(self, stack: Stack, needs: MediaNeeds, most_sources: int, threads: int) -> None:
        super().__init__()
        self.stack = stack
        self.needs = needs
        self.most_sources = most_sources
        self.threads = threads
        self.model_seconds = 0.0

    def on_predict_start(self) -> None:
        """Brings the models to this process's device.

        Raises:
            InputError: one cannot be loaded.
        """
        torch.set_num_threads(self.threads)
        for model in self.stack.every_model:
            if hasattr(model, "device"):
                model.device = str(self.device)
        load_models(self.stack.every_model)

    def predict_step(self, batch: PreparedPart | Packed, batch_idx: int) -> Part:
        """Perceives the items of a part.

        Raises:
            InputError: the device's memory does not hold them.
        """
        prepared: PreparedPart = batch.unpack() if isinstance(batch, Packed) else batch
        perception, start = _Perception(prepared), time.perf_counter()
        try:
            self._hear(perception)
            self._see(perception)
            self._read(perception)
            if self.needs.kind == "scenes":
                self._find_sources(perception)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{self.device}: its memory does not hold what {len(prepared.items)} items need at once; start again "
                "with a smaller batch_size, of the build or of its models, and overwrite"
            ) from error
        self.model_seconds += time.perf_counter() - start
        return perception.finish()

    def _hear(self, perception: _Perception) -> None:
        items = [(item, item.sound) for item in perception.usable() if item.sound is not None]
        outcomes = self._embed_sounds([sound for _, sound in items])
        for (item, _), outcome in zip(items, outcomes, strict=True):
            perception.keep(item, "audio", [outcome])

    def _see(self, perception: _Perception) -> None:
        field = SEEN[self.needs.kind]
        items = [item for item in perception.usable() if item.views]
        outcomes = iter(self._embed_views([view for item in items for view in item.views]))
        for item in items:
            perception.keep(item, field, [next(outcomes) for _ in item.views])
            own = perception.fields[item.number]
            if field in own and item.which is not None and item.timestamps is not None:
                own |= {field: own[field][item.which], "timestamps": item.timestamps[None]}

    def _read(self, perception: _Perception) -> None:
        items = [item for item in perception.usable() if item.text]
        reader, prior = self.stack.reader, self.stack.prior
        if not items or reader is None or prior is None:
            return
        outcomes = embed(lambda texts: prior.predict(reader.features(texts)), [item.text for item in items], prior)
        for item, outcome in zip(items, outcomes, strict=True):
            perception.keep(item, SEEN[self.needs.kind], [outcome])

    def _find_sources(self, perception: _Perception) -> None:
        """Embeds the sources of each scene: those annotated or detected; where there are none, the whole picture."""
        crops = {item.number: item.crops for item in perception.usable()}
        crops |= self._detect(perception)
        items = perception.usable()
        outcomes = iter(self._embed_views([crop for item in items for crop in crops[item.number]]))
        for item in items:
            own = perception.fields[item.number]
            if crops[item.number]:
                perception.keep(item, "sources", [next(outcomes) for _ in crops[item.number]])
            else:
                own["sources"] = own["global_visual"]

    def _detect(self, perception: _Perception) -> dict[int, list[np.ndarray]]:
        """Detects the sources of pictures that are not annotated, and cuts them out: crops by the item's number."""
        items = [(item, item.picture) for item in perception.usable() if item.picture is not None]
        if self.stack.detector is None or not items:
            return {}
        found: dict[int, list[np.ndarray]] = {}
        scenes = [item.scene for item, _ in items if item.scene is not None]
        outcomes = self._find_things(self.stack.detector, [picture for _, picture in items], scenes)
        for (item, picture), outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, InputError):
                perception.rejected[item.number] = str(outcome)
                continue
            picked = pick_detections(outcome, self.most_sources)
            perception.regions[item.number] = regions_of(picked, picture)
            found[item.number] = [cut_box(picture, box) for box in picked.boxes.tolist()]
        with ThreadPoolExecutor() as pool:  # Pillow and torch let other threads work meanwhile
            return {number: [*pool.map(self.needs.view, crops)] for number, crops in found.items()}

    def _embed_views(self, views: Sequence[np.ndarray]) -> list[Outcome[np.ndarray]]:
        return embed_views(views, self.stack.image_encoder, self.needs)

    def _embed_sounds(self, sounds: Sequence[np.ndarray]) -> list[Outcome[np.ndarray]]:
        encoder = self.stack.audio_encoder
        if self.needs.preparations.sound is None or not isinstance(encoder, PreparingAudioEncoder):
            return embed(encoder.encode, sounds, encoder)
        encode = encoder.encode_prepared
        return embed(lambda own: encode(_tensors(own)), sounds, encoder)

    def _find_things(
        self, detector: Detector, pictures: Sequence[np.ndarray], scenes: Sequence[np.ndarray]
    ) -> list[Outcome[Detections]]:
        """Detects things in pictures; ``scenes`` are these as the workers prepare them for the detector."""
        if self.needs.preparations.scene is None or not isinstance(detector, PreparingDetector):
            return each_or_reason(detector.detect, pictures)
        detect = detector.detect_prepared
        every = [*zip(pictures, scenes, strict=True)]
        return each_or_reason(lambda own: detect([x for x, _ in own], _tensors([x for _, x in own])), every)


def _tensors(arrays: Sequence[np.ndarray]) -> list[Tensor]:
    return [*map(torch.from_numpy, arrays)]


def embed_views(views: Sequence[np.ndarray], encoder: ImageEncoder, needs: MediaNeeds) -> list[Outcome[np.ndarray]]:
    """Embeds pictures as :meth:`MediaNeeds.view` gives them; see :func:`embed`."""
    if needs.preparations.image is None or not isinstance(encoder, PreparingImageEncoder):
        return embed(encoder.encode, views, encoder)
    encode = encoder.encode_prepared
    return embed(lambda own: encode(torch.stack(_tensors(own))), views, encoder)


def embed(
    encode: Callable[[Sequence[Input]], Tensor], inputs: Sequence[Input], encoder: Any
) -> list[Outcome[np.ndarray]]:
    """Embeds inputs together; see :func:`each_or_reason`.

    Args:
        encode: what embeds them.
        inputs: what is embedded.
        encoder: tells identity and width.

    Returns:
        for each float32 [width], or why there is none: an embedding that is not finite is none.

    Raises:
        ValueError: the encoder gives other shapes than it says.
    """

    def encode_checked(own: Sequence[Input]) -> list[np.ndarray]:
        embeddings = encode(own)
        if embeddings.shape != (len(own), encoder.width):
            raise ValueError(f"{encoder.identity}: gave {list(embeddings.shape)}, needs {[len(own), encoder.width]}")
        return [*embeddings.float().cpu().numpy()]

    outcomes = each_or_reason(encode_checked, inputs)
    problem = InputError(f"{encoder.identity}: the embedding is not finite")
    return [problem if isinstance(each, np.ndarray) and not np.isfinite(each).all() else each for each in outcomes]


def each_or_reason(model: Callable[[Sequence[Input]], list[Output]], inputs: Sequence[Input]) -> list[Outcome[Output]]:
    """Gives inputs to a model together; one by one, if it refuses them, so that the others do not suffer for one."""
    if not inputs:
        return []
    try:
        return [*model(inputs)]
    except InputError as error:
        return [error] if len(inputs) == 1 else [own for each in inputs for own in each_or_reason(model, [each])]


def regions_of(detections: Detections, picture: np.ndarray) -> tuple[Region, ...]:
    """Notes where in a picture, [height, width, 3], things were detected."""
    height, width = picture.shape[:2]
    scale = torch.tensor([width, height, width, height])
    boxes: Iterator[Any] = map(tuple, (detections.boxes / scale).tolist())
    return tuple(map(Region, detections.labels, detections.scores.tolist(), boxes))
