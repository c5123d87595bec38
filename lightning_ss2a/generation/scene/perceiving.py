"""Perceives items: what is named by options or a scene file becomes sources with embeddings, a batch at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.builders.engine.media_worker import MediaNeeds
from lightning_ss2a.builders.engine.module import Outcome, Stack, each_or_reason, embed, embed_views, regions_of
from lightning_ss2a.builders.listing import Box
from lightning_ss2a.data import LabelHead
from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.generation.scene.labels import Unwanted
from lightning_ss2a.generation.scene.media import ItemMedia
from lightning_ss2a.generation.scene.scene_file import Picture
from lightning_ss2a.generation.scene.source import WHOLE, Scene, Source
from lightning_ss2a.perception.detectors.crops import cut_box, pick_detections
from lightning_ss2a.perception.detectors.protocols import Detections

T = TypeVar("T")
PAINT = 255
"""What boxes are painted over with: white, as all pictures stand on."""


@dataclass(frozen=True, eq=False)
class PerceivedItem:
    """What was perceived of an item.

    Attributes:
        sources: those that are mixed, with their embeddings.
        dropped: (source, why it is not mixed).
        pictures: those seen as a whole.
        global_visual: of these, float32 [V]; None: there is none.
    """

    sources: tuple[Source, ...]
    dropped: tuple[tuple[Source, str], ...]
    pictures: tuple[Picture, ...]
    global_visual: Tensor | None

    def scene(self, key: str) -> Scene:
        """Makes the scene that is mixed, without the frames of a video."""
        return Scene(key, tuple(source for source in self.sources if source.modality != "video"), self.global_visual)


@dataclass
class _Draft:
    """An item on its way: sources that are known, and what is still to be embedded."""

    media: ItemMedia
    heard: dict[str, Outcome[np.ndarray]] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    dropped: list[tuple[Source, str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


class Perceiver:
    """Turns items' media into sources.

    Args:
        stack: the models; what an item needs must be there.
        needs: how pictures become what the image encoder sees.
        most_sources: detected in a picture, at most; the surest.
        unwanted: sources to drop; None: none.
    """

    def __init__(self, stack: Stack, needs: MediaNeeds, most_sources: int, unwanted: Unwanted | None = None) -> None:
        self.stack, self.needs, self.most_sources, self.unwanted = stack, needs, most_sources, unwanted

    def perceive(self, items: Sequence[ItemMedia]) -> list[Outcome[PerceivedItem]]:
        """Perceives items together; of each its sources, or why it has none."""
        found = self._find_sources(items)
        chosen = [_or_reason(self._choose, draft) if isinstance(draft, _Draft) else draft for draft in found]
        return self._embed(chosen)

    def perceive_frames(
        self, video: Source, frames: Sequence[np.ndarray], detect: bool
    ) -> list[tuple[tuple[Source, ...], Tensor]]:
        """Perceives different frames of a video: sources and whole of each.

        Args:
            video: as a source.
            frames: uint8 [height, width, 3] each.
            detect: find the sources in each frame; one in which nothing is found is a source as a whole, one in which
                everything is dropped has none. Else each frame is its only source, as ``ss2a shards frames`` has it.

        Raises:
            InputError: a frame has no embedding.
        """
        if not detect:
            wholes = [torch.from_numpy(_given(outcome)) for outcome in self._embed_views(frames)]
            return [((replace(video, visual=whole),), whole) for whole in wholes]
        found = [self._detected(video.file, *each) for each in self._detections(frames)]
        own = [[replace(source, weight=video.weight) for source in each] or [video] for each in found]
        kept = [[source for source in each if self._why_not(source) is None] for each in own]
        views = [_without(frame, *each) for frame, *each in zip(frames, own, kept, strict=True)]
        views += [crop(frame, source.box) for frame, each in zip(frames, kept, strict=True) for source in each]
        embedded = [torch.from_numpy(_given(outcome)) for outcome in self._embed_views(views)]
        crops = iter(embedded[len(frames) :])
        return [
            (tuple(replace(source, visual=next(crops)) for source in each), whole)
            for each, whole in zip(kept, embedded, strict=False)
        ]

    # ---------------------------------------------------------------- what there is

    def _find_sources(self, items: Sequence[ItemMedia]) -> list[Outcome[_Draft]]:
        """Lists the sources of each item: those that are known, and those that are detected."""
        usable = [item for item in items if not item.problem]
        found = iter([*self._detections([item.pictures[file] for item in usable for file in item.to_detect])])
        heard = iter(self._hear([waveform for item in usable for waveform in item.sounds.values()]))
        drafts: list[Outcome[_Draft]] = []
        for item in items:
            if item.problem:
                drafts.append(InputError(item.problem))
                continue
            detected = [(file, *next(found)) for file in item.to_detect]
            draft = _Draft(item, {file: next(heard) for file in item.sounds})
            drafts.append(_or_reason(self._fill, draft, detected))
        return drafts

    def _fill(self, draft: _Draft, detected: Sequence[tuple[str, np.ndarray, Outcome[Detections]]]) -> _Draft:
        draft.pictures += draft.media.scene.pictures
        if draft.media.has_frames:
            video = draft.media.item.videos[0]
            draft.sources.append(Source("video", Path(video).stem, file=video))
        for file, image, outcome in detected:
            own = self._detected(file, image, outcome)
            draft.pictures.append(Picture(file, tuple(source.box for source in own if source.box is not None)))
            draft.sources += own or [Source("image", WHOLE, file=file)]
        for source in draft.media.scene.sources:
            draft.sources.append(self._named(source, draft.heard.get(source.file)))
        return draft

    def _named(self, source: Source, heard: Outcome[np.ndarray] | None) -> Source:
        """Names a sound that has no other name than its file by what it sounds most like."""
        if source.modality != "audio" or source.label != Path(source.file).stem or self._head is None:
            return source
        scores = self._head.scores(torch.from_numpy(_given(heard)))
        return replace(source, label=self._head.labels[int(scores.argmax())])

    @cached_property
    def _head(self) -> LabelHead | None:
        return self.stack.audio_encoder.label_head()

    def _detections(self, images: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, Outcome[Detections]]]:
        if images:
            assert self.stack.detector is not None, "checked before any medium is read"
            outcomes = each_or_reason(self.stack.detector.detect, images)
            yield from zip(images, outcomes, strict=True)

    def _detected(self, file: str, image: np.ndarray, outcome: Outcome[Detections]) -> list[Source]:
        picked = pick_detections(_given(outcome), self.most_sources)
        return [
            Source("image", region.label, file=file, box=region.box, score=region.score)
            for region in regions_of(picked, image)
        ]

    # ---------------------------------------------------------------- what is wanted of it

    def _choose(self, draft: _Draft) -> _Draft:
        """Gives sources their labels and weights, and leaves out what is not wanted.

        Raises:
            InputError: a weight names no source, or nothing is left.
        """
        sources = reweighted(draft.sources, draft.media.item.weights)
        for source in sources:
            if reason := self._why_not(source):
                draft.dropped.append((source, reason))
        gone = {id(source) for source, _ in draft.dropped}
        draft.sources = [source for source in sources if id(source) not in gone]
        if not draft.sources:
            why = "; ".join(f"{source.label}: {reason}" for source, reason in draft.dropped)
            raise InputError(f"every source is dropped, nothing is left to sound ({why or 'the scene file has none'})")
        return draft

    def _why_not(self, source: Source) -> str | None:
        if source.weight == 0:
            return "weight 0"
        word = self.unwanted.word_for(source) if self.unwanted is not None else None
        return None if word is None else f"without {word}"

    # ---------------------------------------------------------------- embeddings

    def _embed(self, drafts: Sequence[Outcome[_Draft]]) -> list[Outcome[PerceivedItem]]:
        """Embeds what all items are made of, each kind at once."""
        good = [draft for draft in drafts if isinstance(draft, _Draft)]
        seen = iter(self._embed_views([view for draft in good for view in _views(draft)]))
        read = iter(self._read([source.label for draft in good for source in _of(draft, "text")]))
        done = []
        for draft in good:
            wholes = [next(seen) for _ in draft.pictures]
            crops, texts = ([next(of) for _ in _of(draft, kind)] for kind, of in (("image", seen), ("text", read)))
            done.append(_or_reason(self._finish, draft, wholes, iter(crops), iter(texts)))
        finished = iter(done)
        return [next(finished) if isinstance(draft, _Draft) else draft for draft in drafts]

    def _finish(self, draft: _Draft, wholes: Sequence[Outcome], crops: Iterator, texts: Iterator) -> PerceivedItem:
        sources = []
        for source in draft.sources:
            if source.modality == "video":  # whose frames are embedded later, window by window
                sources.append(source)
                continue
            outcome = (
                draft.heard[source.file]
                if source.modality == "audio"
                else next(texts if source.modality == "text" else crops)
            )
            heard = source.modality == "audio" or (source.modality == "text" and self.stack.sound_prior is not None)
            sources.append(source.with_embedding(torch.from_numpy(_given(outcome)), heard))
        seen = [torch.from_numpy(_given(whole)) for whole in wholes]
        return PerceivedItem(tuple(sources), tuple(draft.dropped), tuple(draft.pictures), mean_picture(seen))

    def _embed_views(self, images: Sequence[np.ndarray]) -> list[Outcome[np.ndarray]]:
        return embed_views([self.needs.view(image) for image in images], self.stack.image_encoder, self.needs)

    def _hear(self, waveforms: Sequence[np.ndarray]) -> list[Outcome[np.ndarray]]:
        return embed(self.stack.audio_encoder.encode, waveforms, self.stack.audio_encoder)

    def _read(self, texts: Sequence[str]) -> list[Outcome[np.ndarray]]:
        reader, prior, sound_prior = self.stack.reader, self.stack.prior, self.stack.sound_prior
        if not texts:
            return []
        if sound_prior is not None:
            return embed(sound_prior.predict, texts, sound_prior)
        assert reader is not None
        assert prior is not None, "checked before any medium is read"
        return embed(lambda own: prior.predict(reader.features(own)), texts, prior)


def mean_picture(wholes: Sequence[Tensor]) -> Tensor | None:
    """Averages pictures that belong to one scene, as one that shows them all is nearest to: [V], of their mean length.

    One picture is itself; of none there is none.
    """
    if len(wholes) < 2:
        return wholes[0] if wholes else None
    stacked = torch.stack([*wholes])
    return normalize(normalize(stacked, dim=1).mean(0), dim=0) * stacked.norm(dim=1).mean()


def reweighted(sources: Sequence[Source], weights: Sequence[tuple[str, float]]) -> list[Source]:
    """Gives sources the weights that options name; a weight is that of all sources of its name.

    Raises:
        InputError: a name is that of no source.
    """
    for name, weight in weights:
        if not any(name in source.names for source in sources):
            known = sorted({source.label for source in sources})
            raise InputError(f"weight of {name!r}: there is no such source; {did_you_mean(name, known)}")
        sources = [replace(source, weight=weight) if name in source.names else source for source in sources]
    return list(sources)


def paint_over(image: np.ndarray, boxes: Sequence[Box], kept: Sequence[Box]) -> np.ndarray:
    """Paints boxes of a picture white, but for what also lies in boxes that are kept: uint8 [height, width, 3].

    Args:
        image: uint8 [height, width, 3], which stays as it is.
        boxes: as parts of width and height.
        kept: of the same kind.
    """
    painted = image.copy()
    for box in boxes:
        part = _part(image, box)
        painted[part] = PAINT
    for box in kept:
        part = _part(image, box)
        painted[part] = image[part]
    return painted


def _views(draft: _Draft) -> Iterator[np.ndarray]:
    """Lists what is seen of an item: its pictures without what was dropped, then its sources' crops."""
    kept = _of(draft, "image")
    for picture in draft.pictures:
        own = [source.box for source in kept if source.file == picture.file and source.box is not None]
        gone = [box for box in picture.boxes if not any(np.allclose(box, other, atol=1e-4) for other in own)]
        yield paint_over(draft.media.pictures[picture.file], gone, own)
    for source in kept:
        yield crop(draft.media.pictures[source.file], source.box)


def crop(image: np.ndarray, box: Box | None) -> np.ndarray:
    """Cuts a source out of its picture; without a box all of it: uint8 [height, width, 3]."""
    return image if box is None else cut_box(image, _pixels(image, box))


def _part(image: np.ndarray, box: Box) -> tuple[slice, slice]:
    left, top, right, bottom = _pixels(image, box)
    return slice(math.floor(top), math.ceil(bottom)), slice(math.floor(left), math.ceil(right))


def _pixels(image: np.ndarray, box: Box) -> tuple[float, float, float, float]:
    """Gives a box in pixels; a thousandth of one is what its parts are inaccurate by, and no pixel of its own."""
    height, width = image.shape[:2]
    left, top, right, bottom = (
        round(side * length, 3) for side, length in zip(box, (width, height, width, height), strict=True)
    )
    return left, top, right, bottom


def _without(frame: np.ndarray, found: Sequence[Source], kept: Sequence[Source]) -> np.ndarray:
    """Paints over what was found in a frame and is dropped."""
    gone = [source.box for source in found if source.box is not None and source not in kept]
    return paint_over(frame, gone, [source.box for source in kept if source.box is not None])


def _of(draft: _Draft, modality: str) -> list[Source]:
    return [source for source in draft.sources if source.modality == modality]


def _given(outcome: Outcome[T] | None) -> T:
    """Gives what a model gave; raises InputError if that is a reason why it gave nothing."""
    if isinstance(outcome, InputError):
        raise outcome
    assert outcome is not None
    return outcome


def _or_reason(function: Callable[..., T], *arguments: Any) -> Outcome[T]:
    try:
        return function(*arguments)
    except InputError as error:
        return error
