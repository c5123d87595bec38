"""Defines what a list of media holds: items, and which of them are there."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_ss2a.data import PAIR_ORIGINS
from lightning_ss2a.errors import InputError

Seen = Literal["picture", "video", "text", "nothing"]
"""What stands for the visual side of an item."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as parts of the picture's width and height: in [0, 1]."""


@dataclass(frozen=True)
class Item:
    """One entry of a data set: something seen, or a text in its place, with its sound.

    Paths start from the folder of the media, unless they are absolute; see
    :func:`lightning_ss2a.perception.media.files.read_media`.

    Attributes:
        place: where it is listed, for messages: ``vggsound.csv row 4``.
        key: its name in the data set, which no other item has.
        name: what is seen and heard.
        class_name: kind of thing.
        picture: path of a picture.
        video: path of a video. At most one of picture, video and text is given.
        text: what is heard, in words; takes the place of a picture that there is none of.
        sound: path of the sound; None: the video's own, or none at all (a picture to be given a sound).
        window: seconds (start, end) of the video or the sound that belong to the item; None: all of it.
        group: items of one group stay together in a split; None: only what shares a file does.
        split: the part of the data set that its authors put it in; None: they made no parts.
        pair_origin: one of ``annotated``, ``curated``, ``translated``.
        boxes: annotated sources in the picture or the central frame; None: nobody marked any.
        sources: how many sources its authors count; None: they did not say.
    """

    place: str
    key: str
    name: str
    class_name: str
    picture: str | None = None
    video: str | None = None
    text: str | None = None
    sound: str | None = None
    window: tuple[float, float] | None = None
    group: str | None = None
    split: str | None = None
    pair_origin: str = PAIR_ORIGINS[0]
    boxes: tuple[Box, ...] | None = None
    sources: int | None = None

    def __post_init__(self) -> None:
        seen = [kind for kind in ("picture", "video", "text") if getattr(self, kind) is not None]
        if len(seen) > 1:
            raise InputError(f"{self.place}: both {' and '.join(seen)} are given; name one of them")
        if not seen and self.sound is None:
            raise InputError(f"{self.place}: neither picture, video, text nor sound is given")
        if self.pair_origin not in PAIR_ORIGINS:
            raise InputError(f"{self.place}: pair_origin {self.pair_origin!r} is not one of {', '.join(PAIR_ORIGINS)}")
        if self.window is not None and not 0 <= self.window[0] < self.window[1] < float("inf"):
            raise InputError(f"{self.place}: the clip from {self.window[0]:g} s to {self.window[1]:g} s is none")

    @property
    def seen(self) -> Seen:
        """What stands for its visual side."""
        if self.picture is not None:
            return "picture"
        return "video" if self.video is not None else "text" if self.text is not None else "nothing"

    @property
    def heard(self) -> str | None:
        """Path of the file that its sound is in: the sound, else the video; None: it has no sound."""
        return self.sound if self.sound is not None else self.video

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of its media."""
        return tuple(path for path in (self.picture, self.video, self.sound) if path is not None)


class ItemReader(ABC):
    """Reads the list of a data set; one class serves every data set of the same layout."""

    @abstractmethod
    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items, whether or not their media are there.

        Args:
            source: the list's file, or the folder of the data set.
            root: folder of the media.

        Raises:
            InputError: names file and row of what is missing or wrong in the list.
        """

    def key_of(self, name: str) -> str:
        """Gives the key of the item that a line of an exclusion list means; here, the line itself."""
        return name


@dataclass(frozen=True)
class Listing:
    """What a list holds.

    Attributes:
        items: those whose media are all there, in the list's order.
        missing: those whose media are not (dead links are normal), in the list's order.
        absent: the files of each of these that are not there.
        excluded: keys of those left out on demand.
        repeated: places of items listed twice over with equal content; the first stays.
    """

    items: tuple[Item, ...]
    missing: tuple[Item, ...] = ()
    absent: tuple[tuple[str, ...], ...] = ()
    excluded: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()

    @property
    def problems(self) -> list[tuple[Item, str]]:
        """Says of each missing item which of its files are not there."""
        return [(item, f"missing: {', '.join(files)}") for item, files in zip(self.missing, self.absent, strict=True)]


def ids_text(keys: Iterable[str]) -> str:
    """Gives the content of a file of keys: each once, one a line, sorted; its sha256 is :func:`hash_ids`."""
    return "".join(f"{key}\n" for key in sorted(set(keys)))


def hash_ids(keys: Iterable[str]) -> str:
    """Computes the sha256 of a set of keys, whatever their order; that of the file with :func:`ids_text`."""
    return hashlib.sha256(ids_text(keys).encode()).hexdigest()
