"""Takes the sound, the picture, the crops and the video of a listed item out of its media, as files of their own."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_ss2a.builders.engine.media_worker import LONGEST_SIDE, cut_sources
from lightning_ss2a.builders.listing import Item
from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.files import write_whole
from lightning_ss2a.perception.media.containers import sound_rate
from lightning_ss2a.perception.media.files import load_picture, load_sound, read_media
from lightning_ss2a.perception.media.video import VideoReader
from lightning_ss2a.perception.packages import media_package

SOUNDS, IMAGES, CROPS, VIDEOS = "sounds", "images", "crops", "videos"
"""Folders of the files."""


@dataclass(frozen=True)
class ReferenceRule:
    """How items become files.

    Attributes:
        root: folder that relative paths of media start from.
        output: folder of the folders of files, which are there.
        video_reader: reads videos.
        sample_rate: samples per second of the sounds; None: each its own.
        videos: link the videos, too.
    """

    root: Path
    output: Path
    video_reader: VideoReader
    sample_rate: int | None = None
    videos: bool = False

    def sound(self, name: str) -> Path:
        """Names the file of an item's sound."""
        return self.output / SOUNDS / f"{name}.wav"

    def image(self, name: str) -> Path:
        """Names the file of its picture."""
        return self.output / IMAGES / f"{name}.png"

    def crop(self, name: str, number: int) -> Path:
        """Names the file of one of its annotated sources, counted from 1."""
        return self.output / CROPS / f"{name}.{number}.png"

    def video(self, item: Item, name: str) -> Path | None:
        """Names the link to its video; None: it has none, or none is wanted."""
        if not self.videos or item.video is None:
            return None
        return self.output / VIDEOS / f"{name}{Path(item.video).suffix}"

    def files(self, item: Item, name: str) -> Iterator[Path]:
        """Names all that an item becomes."""
        if item.heard is not None:
            yield self.sound(name)
        if item.seen in ("picture", "video"):
            yield self.image(name)
        yield from (self.crop(name, number) for number, _ in enumerate(item.boxes or (), start=1))
        if (video := self.video(item, name)) is not None:
            yield video

    def digest(self, item: Item) -> str:
        """Identifies what an item's files hold: by its media's size and time, and how they are read."""
        media = [(file, *_stamp(self.root / file.partition("!")[0])) for file in item.files]
        read = [self.video_reader.decoder, self.sample_rate, item.window, item.boxes]
        return hashlib.sha256(json.dumps([media, read]).encode()).hexdigest()


def make_reference(item: Item, name: str, rule: ReferenceRule) -> str:
    """Writes the files of an item, all or none.

    Returns:
        Why its media cannot be used; empty: they can, and the files are written.

    Raises:
        OSError: a file cannot be written.
    """
    try:
        files, link = _read(item, name, rule), _link(item, name, rule)
    except InputError as error:
        return one_line(error)
    except Exception as error:  # whatever a library makes of a broken file, the others go on
        return f"{type(error).__name__}: {one_line(error)}"
    for path, content in files.items():
        write_whole(path, content)
    if link is not None:
        _write_link(*link)
    return ""


def _stamp(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return 0, 0


def _read(item: Item, name: str, rule: ReferenceRule) -> dict[Path, bytes]:
    """Reads what an item's media hold: content by file."""
    if item.seen == "nothing":
        raise InputError("nothing is seen: neither picture, video nor text")
    image, sound = _read_video(item, rule) if item.video is not None else (_read_picture(item, rule), None)
    if item.sound is not None:
        sound = load_sound(read_media(rule.root, item.sound), item.sound, rule.sample_rate, item.window)
    files = {}
    if image is not None:
        for number, crop in enumerate(cut_sources(image, item.boxes or ()), start=1):
            files[rule.crop(name, number)] = _png(crop)
        files[rule.image(name)] = _png(image)
    if sound is not None:
        files[rule.sound(name)] = _wav(*sound)
    return files


def _read_video(item: Item, rule: ReferenceRule) -> tuple[np.ndarray, tuple[np.ndarray, int] | None]:
    """Reads the middle frame of a video, and its sound with samples per second, if that is the item's."""
    assert item.video is not None
    path, rate = rule.root / item.video, None
    if item.sound is None:
        rate = rule.sample_rate or sound_rate(path, item.video)
    clip = rule.video_reader.read(path, frames=1, sample_rate=rate, window=item.window, name=item.video)
    if rate is None:
        return clip.frames[0], None
    if clip.waveform is None:
        raise InputError(clip.no_sound)
    return clip.frames[0], (clip.waveform, rate)


def _read_picture(item: Item, rule: ReferenceRule) -> np.ndarray | None:
    if item.picture is None:
        return None
    return load_picture(read_media(rule.root, item.picture), item.picture, LONGEST_SIDE)


def _link(item: Item, name: str, rule: ReferenceRule) -> tuple[Path, Path] | None:
    """Tells the link to an item's video, and where it leads."""
    link = rule.video(item, name)
    if link is None or item.video is None:
        return None
    if item.window is not None:
        start, end = item.window
        raise InputError(
            f"{item.video}: the item is its part from {start:g} s to {end:g} s, and videos are linked whole; cut it "
            "out, or take no videos"
        )
    return link, (rule.root / item.video).resolve()


def _write_link(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    media_package("PIL.Image").fromarray(image).save(content, "PNG")
    return content.getvalue()


def _wav(waveform: np.ndarray, rate: int) -> bytes:
    """Makes a wav file of 32-bit floats: nothing is rounded, or clipped where a decoder overshoots.

    Equal sounds make equal files; libsndfile would put the time of day into them.
    """
    content = io.BytesIO()
    media_package("scipy.io.wavfile").write(content, rate, waveform.astype(np.float32, copy=False))
    return content.getvalue()
