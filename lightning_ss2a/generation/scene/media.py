"""Reads the media of items, in worker processes or in this one; what is wrong with them is told in the result."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset, get_worker_info

from lightning_ss2a.builders.engine.deaths import Deaths
from lightning_ss2a.builders.engine.media_worker import LONGEST_SIDE
from lightning_ss2a.builders.engine.packing import Packed, pack
from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.generation.items import Item
from lightning_ss2a.generation.scene.scene_file import SceneFile, read_scene
from lightning_ss2a.generation.scene.source import Source
from lightning_ss2a.perception.encoders.running import batches
from lightning_ss2a.perception.media.files import load_audio, load_picture, read_media
from lightning_ss2a.perception.media.video import VideoReader


@dataclass
class ItemMedia:
    """The media of an item, but for the frames of its video, which are too many to be held.

    Attributes:
        item: what is asked for.
        scene: sources and pictures that are known: texts, sounds, and what a scene file holds.
        to_detect: pictures whose sources are not known.
        pictures: uint8 [height, width, 3] each, by file.
        sounds: mono, float32 [samples] each, by file.
        has_frames: whether its video is a source, too.
        problem: why the item cannot be used; empty: it can.
    """

    item: Item
    scene: SceneFile = field(default_factory=lambda: SceneFile((), ()))
    to_detect: tuple[str, ...] = ()
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    sounds: dict[str, np.ndarray] = field(default_factory=dict)
    has_frames: bool = False
    problem: str = ""


@dataclass(frozen=True)
class MediaReading:
    """How media are read.

    Attributes:
        sample_rate: samples per second that the audio encoder hears.
        video_reader: reads videos.
        own_sound: a video stands for the sound that it has, as the oracle wants it.
    """

    sample_rate: int
    video_reader: VideoReader
    own_sound: bool = False

    def read(self, item: Item) -> ItemMedia:
        """Reads an item."""
        try:
            return self._read(item)
        except InputError as error:
            return ItemMedia(item, problem=one_line(error))
        except Exception as error:  # the other items do not suffer for one file that makes a library stumble
            return ItemMedia(item, problem=f"{type(error).__name__}: {one_line(error)}")

    def _read(self, item: Item) -> ItemMedia:
        scene = read_scene(item.sources_file) if item.sources_file else SceneFile((), ())
        own = [Source("text", text.strip()) for text in item.texts]
        own += [Source("audio", Path(file).stem, file=file) for file in item.audios]
        media = ItemMedia(item, replace(scene, sources=(*scene.sources, *own)), to_detect=item.images)
        media.has_frames = bool(item.videos) and not self.own_sound
        if self.own_sound and item.videos:
            self._take_own_sound(media, item.videos[0])
        for file in {*item.images, *(p.file for p in scene.pictures), *_files_of(scene, "image")}:
            media.pictures[file] = load_picture(_bytes(file), file, LONGEST_SIDE)
        for file in {*item.audios, *_files_of(scene, "audio")}:
            media.sounds[file] = load_audio(_bytes(file), file, self.sample_rate)
        return media

    def _take_own_sound(self, media: ItemMedia, video: str) -> None:
        clip = self.video_reader.read(Path(video), sample_rate=self.sample_rate, name=video)
        if clip.waveform is None:
            raise InputError(clip.no_sound)
        media.sounds[video] = clip.waveform
        own = Source("audio", Path(video).stem, file=video)
        media.scene = replace(media.scene, sources=(*media.scene.sources, own))


class ItemBatches(Dataset[list[ItemMedia] | Packed]):
    """The media of items, a batch each; workers pack them for their way.

    Args:
        items: those that are to be made.
        size: items of a batch.
        reading: how media are read.
        deaths: of which items workers have died; those that are fatal are not even tried.
    """

    def __init__(self, items: Sequence[Item], size: int, reading: MediaReading, deaths: Deaths) -> None:
        self._batches, self._reading = batches(items, size), reading
        self._deaths, self._fatal = deaths, deaths.fatal()

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[ItemMedia] | Packed:
        is_worker = get_worker_info() is not None
        media = [self._read(item, is_worker) for item in self._batches[index]]
        return pack(media) if is_worker else media

    def _read(self, item: Item, is_worker: bool) -> ItemMedia:
        if reason := self._fatal.get(item.key):
            return ItemMedia(item, problem=reason)
        if is_worker:
            self._deaths.note_work(item.key)
        return self._reading.read(item)


def _files_of(scene: SceneFile, modality: str) -> list[str]:
    return [source.file for source in scene.sources if source.modality == modality]


def _bytes(file: str) -> bytes:
    return read_media(Path(), file)
