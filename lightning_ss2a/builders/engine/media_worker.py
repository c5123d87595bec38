"""Reads the media of items, in worker processes: one decode of a file serves frames, crops and sound.

Broken media are data, not an exception: such an item comes with the reason why it cannot be used.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from lightning_ss2a.builders.engine.deaths import Deaths
from lightning_ss2a.builders.engine.packing import Packed, pack
from lightning_ss2a.builders.engine.parts import Region
from lightning_ss2a.builders.listing import Box, Item
from lightning_ss2a.data.format.schema import FRAMES_PER_VIDEO
from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.detectors.crops import CropShape, cut_box, make_square
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.perception.media.files import load_audio, load_image, load_picture, read_media
from lightning_ss2a.perception.media.video import Clip, VideoReader

LONGEST_SIDE = 1024
"""Pixels of a picture's longer side, at most: so many that its crops are sharp."""

Prepare = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class Preparations:
    """What workers do for models that take prepared media; None: the model prepares by itself.

    Attributes:
        image: for the image encoder.
        sound: for the audio encoder.
        scene: of whole pictures, for the detector.
    """

    image: Prepare | None = None
    sound: Prepare | None = None
    scene: Prepare | None = None


@dataclass(frozen=True)
class MediaNeeds:
    """What the encoders need of each item.

    Attributes:
        kind: ``pairs``, ``scenes`` or ``videos``.
        root: folder that relative paths start from.
        sample_rate: samples per second that the audio encoder hears.
        video_reader: reads videos.
        preparations: of the models' inputs.
        crop_shape: how a box, and a picture that is not square, becomes the square that the image encoder sees.
    """

    kind: str
    root: Path
    sample_rate: int
    video_reader: VideoReader
    preparations: Preparations
    crop_shape: CropShape

    def view(self, image: np.ndarray) -> np.ndarray:
        """Makes of a picture, uint8 [height, width, 3], what the image encoder is given."""
        return _by(self.preparations.image, make_square(image, self.crop_shape))


@dataclass
class PreparedItem:
    """An item as the encoders need it.

    Attributes:
        number: of the item in the list.
        content: sha256 of each of its files.
        views: the whole picture or the different frames; see :meth:`MediaNeeds.view`.
        which: of a video, the number among ``views`` of each of its 64 frames.
        timestamps: of these, float32 [64], in seconds.
        picture: uint8 [height, width, 3]; None: there is nothing to detect.
        scene: the same as the detector is given it.
        crops: of the annotated boxes.
        regions: of the annotated boxes.
        sound: as the audio encoder is given it; unprepared, mono, float32 [samples].
        text: stands for what is seen; empty: nothing does.
        problem: why the item cannot be used; empty: it can.
    """

    number: int
    content: list[str] = field(default_factory=list)
    views: list[np.ndarray] = field(default_factory=list)
    which: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    picture: np.ndarray | None = None
    scene: np.ndarray | None = None
    crops: list[np.ndarray] = field(default_factory=list)
    regions: tuple[Region, ...] = ()
    sound: np.ndarray | None = None
    text: str = ""
    problem: str = ""


@dataclass(frozen=True)
class PreparedPart:
    """The items of a part."""

    number: int
    items: list[PreparedItem]


class MediaParts(Dataset[PreparedPart | Packed]):
    """The media of the parts that are to be done, a part each; workers pack them for their way.

    Args:
        items: the whole list.
        parts: numbers of the parts to be done.
        part_items: items of a part.
        needs: what the encoders need.
        deaths: of which items workers have died; those that are fatal are not even tried.
    """

    def __init__(
        self,
        items: Sequence[Item],
        parts: Sequence[int],
        part_items: int,
        needs: MediaNeeds,
        deaths: Deaths,
    ) -> None:
        self._parts = list(parts)
        self._needs = needs
        self._deaths, self._fatal = deaths, deaths.fatal()
        # A worker gets no item that it does not need: lists can be long.
        self._items = {part: list(items[part * part_items : (part + 1) * part_items]) for part in self._parts}
        self._part_items = part_items

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> PreparedPart | Packed:
        number = self._parts[index]
        items = list(enumerate(self._items[number], start=number * self._part_items))
        if get_worker_info() is None:
            return PreparedPart(number, [self._prepare(*each) for each in items])
        prepared = []
        for each in items:
            self._deaths.note_work(str(each[0]))
            prepared.append(self._prepare(*each))
        return pack(PreparedPart(number, prepared))

    def _prepare(self, number: int, item: Item) -> PreparedItem:
        if reason := self._fatal.get(str(number)):
            return PreparedItem(number, problem=reason)
        return prepare(item, number, self._needs)


def end_with_parent(worker: int) -> None:
    """Makes a worker end when the build's process does, even by a kill.

    Torch's own watch is on the process that forked it, which is a server that lives as long as its workers.
    """
    parent = parent_process()
    assert parent is not None, "not a worker"

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def prepare(item: Item, number: int, needs: MediaNeeds) -> PreparedItem:
    """Reads the media of an item; what is wrong with them is told in the result."""
    prepared = PreparedItem(number)
    try:
        _read(item, needs, prepared)
    except InputError as error:
        return PreparedItem(number, problem=one_line(error))
    except Exception as error:  # a build of days does not end because of one file that makes a library stumble
        return PreparedItem(number, problem=f"{type(error).__name__}: {one_line(error)}")
    return prepared


def _read(item: Item, needs: MediaNeeds, prepared: PreparedItem) -> None:
    _check(item, needs)
    clip = _read_clip(item, needs) if item.video is not None else None
    if clip is not None and item.sound is None:
        if clip.waveform is None:
            raise InputError(clip.no_sound)
        waveform = clip.waveform
    else:
        waveform = _read_sound(item, needs, prepared)
    prepared.sound = _by(needs.preparations.sound, waveform)
    if item.video is not None and clip is not None:
        prepared.content.append(sha256_of(needs.root / item.video))
        _use_frames(clip, item, needs, prepared)
    elif item.picture is not None:
        _use_picture(item, needs, prepared)
    else:
        prepared.text = item.text or ""


def _by(prepare: Prepare | None, medium: np.ndarray) -> np.ndarray:
    return medium if prepare is None else prepare(medium).numpy()


def _check(item: Item, needs: MediaNeeds) -> None:
    if item.heard is None:
        raise InputError("it has no sound")
    if item.seen == "nothing":
        raise InputError("nothing is seen: neither picture, video nor text")
    if needs.kind == "videos" and item.seen != "video":
        raise InputError(f"a {item.seen}, not a video")
    if needs.kind == "scenes" and item.seen == "text":
        raise InputError("a text, which has no sources; it can be one of a pair")


def _read_clip(item: Item, needs: MediaNeeds) -> Clip:
    assert item.video is not None
    return needs.video_reader.read(
        needs.root / item.video,
        frames=FRAMES_PER_VIDEO if needs.kind == "videos" else 1,
        sample_rate=needs.sample_rate if item.sound is None else None,
        window=item.window,
        name=item.video,
    )


def _read_sound(item: Item, needs: MediaNeeds, prepared: PreparedItem) -> np.ndarray:
    assert item.sound is not None
    data = read_media(needs.root, item.sound)
    prepared.content.append(hashlib.sha256(data).hexdigest())
    return load_audio(data, item.sound, needs.sample_rate, item.window)


def _use_frames(clip: Clip, item: Item, needs: MediaNeeds, prepared: PreparedItem) -> None:
    # A frame that stands for several moments is encoded once.
    _, first, which = np.unique(clip.presented, return_index=True, return_inverse=True)
    prepared.views = [needs.view(clip.frames[i]) for i in first]
    if needs.kind == "videos":
        prepared.which, prepared.timestamps = which.reshape(-1), clip.timestamps.astype(np.float32)
    elif needs.kind == "scenes":
        _use_sources(clip.frames[0], item, needs, prepared)


def _use_picture(item: Item, needs: MediaNeeds, prepared: PreparedItem) -> None:
    assert item.picture is not None
    data = read_media(needs.root, item.picture)
    prepared.content.append(hashlib.sha256(data).hexdigest())
    if needs.kind == "pairs":
        prepared.views = [needs.view(load_image(data, item.picture, needs.crop_shape))]
        return
    image = load_picture(data, item.picture, LONGEST_SIDE)
    prepared.views = [needs.view(image)]
    _use_sources(image, item, needs, prepared)


def _use_sources(image: np.ndarray, item: Item, needs: MediaNeeds, prepared: PreparedItem) -> None:
    if not item.boxes:
        prepared.picture, prepared.scene = image, _by(needs.preparations.scene, image)
        return
    prepared.crops = [needs.view(crop) for crop in cut_sources(image, item.boxes)]
    prepared.regions = tuple(Region("", 1.0, box) for box in item.boxes)


def cut_sources(image: np.ndarray, boxes: Sequence[Box]) -> list[np.ndarray]:
    """Cuts the annotated sources out of a picture: uint8 [height, width, 3] each, in the order of their boxes."""
    height, width = image.shape[:2]
    return [
        cut_box(image, (left * width, top * height, right * width, bottom * height))
        for left, top, right, bottom in boxes
    ]
