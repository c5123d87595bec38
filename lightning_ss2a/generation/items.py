"""What sounds are asked for: from options, from a CSV file, from a folder of media."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.builders.listing.media_files import SUFFIXES, MediaKind, media_in
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path

COLUMNS = ("key", "image", "text", "audio", "video", "sources_file", "weight")
FILES = ("image", "audio", "video")
"""Columns whose entries are sources with files."""
SEPARATOR = ";"
"""Between several entries of a cell."""
_COLUMN_OF: dict[MediaKind, str] = {"picture": "images", "sound": "audios", "video": "videos"}
_SAFE = re.compile(r"[\w-]([\w.-]*[\w-])?")
_UNSAFE = re.compile(r"[^\w.-]+")
LONGEST_KEY = 100
"""Bytes of a name in UTF-8; file systems take 255 for a file, of which a track's has two and more."""
FAILED = "failed.csv"
"""In the output folder: items of which nothing was made, and why."""
SCENE_SUFFIX = ".scene.yaml"
"""Of the files that ``--sources`` saves, after the key of their item."""


@dataclass(frozen=True)
class Item:
    """A sound that is asked for.

    Attributes:
        key: names its files; letters, digits, ``_``, ``-`` and ``.``.
        place: where it is asked for, for messages; empty: by options.
        images: pictures, in which sources are detected.
        texts: sources in words.
        audios: sources that are sounds.
        videos: at most one, which gets the sound.
        sources_file: a scene as ``--sources`` saves it.
        weights: (label, text or file of a source, how loud it is).
    """

    key: str
    place: str = ""
    images: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    audios: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    sources_file: str | None = None
    weights: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        start = f"{self.place}: " if self.place else ""
        if not (self.images or self.texts or self.audios or self.videos or self.sources_file):
            raise InputError(f"{start}nothing to sound: name an image, a text, an audio, a video or a sources_file")
        if any(not text.strip() for text in self.texts):
            raise InputError(f"{start}a text is empty; say in words what is heard")
        if len(self.videos) > 1:
            raise InputError(f"{start}{len(self.videos)} videos; each is an item of its own, with one sound")
        for name, weight in self.weights:
            if not 0 <= weight < float("inf"):
                raise InputError(f"{start}weight of {name} is {weight:g}, needs at least 0")

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of its media and its scene."""
        scene = (self.sources_file,) if self.sources_file else ()
        return (*self.images, *self.audios, *self.videos, *scene)


def item_of_options(
    image: Sequence[str] | None,
    text: Sequence[str] | None,
    audio: Sequence[str] | None,
    video: Sequence[str] | None,
    sources_file: str | None,
    weight: Sequence[str] | None,
    key: str | None = None,
) -> Item:
    """Makes the one item that options ask for, named by its first medium.

    Raises:
        InputError: it asks for nothing, or a weight is none.
    """
    media = [to_path(path).stem for path in (*(image or ()), *(video or ()), *(audio or ()))]
    scene = [_scene_name(to_path(sources_file))] if sources_file else []
    names = [*([key] if key else []), *media, *scene, *(text or ())]
    return Item(
        safe_key(names[0]) if names else "",
        images=tuple(image or ()),
        texts=tuple(text or ()),
        audios=tuple(audio or ()),
        videos=tuple(video or ()),
        sources_file=sources_file,
        weights=tuple(_weights(weight or (), "")),
    )


def list_items(source: str, output: str | None = None) -> list[Item]:
    """Lists the items of a CSV file, one a row, or of a folder, one a medium.

    A CSV file has some of the columns key, image, text, audio, video, sources_file and weight; a cell may hold several
    entries with semicolons between them, a weight is ``NAME=NUMBER``. Paths start from the file's folder.

    Args:
        source: the file or folder.
        output: folder of the sounds; what lies in it is no medium of theirs.

    Raises:
        InputError: the list is wrong; names file and row. Or it is the file that tells what failed.
    """
    path = to_path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if output is not None and path.resolve() == (to_path(output) / FAILED).resolve():
        raise InputError(f"{path}: is written anew by this call, or removed; copy it under another name")
    items = [*(_items_in(path, output) if path.is_dir() else _items_of(path))]
    if not items:
        raise InputError(f"{path}: lists nothing")
    first: dict[str, Item] = {}
    for item in items:
        if (other := first.setdefault(item.key, item)) is not item:
            advice = (
                "rename one, or list them in a CSV file with a column key"
                if path.is_dir()
                else "give each a key of its own"
            )
            raise InputError(f"{item.place}: the same key as {other.place}, {item.key!r}; {advice}")
    return items


def safe_key(name: str) -> str:
    """Makes a name of files from any text: what is neither letter, digit, ``-`` nor ``.`` becomes ``_``.

    What is such a name already stays, as YouTube ids must that begin with ``_``.
    """
    if _SAFE.fullmatch(name) and len(name.encode()) <= LONGEST_KEY:
        return name
    short = _UNSAFE.sub("_", name).strip("._").encode()[:LONGEST_KEY].decode(errors="ignore")
    return short.strip("._") or "sound"


def _scene_name(path: Path) -> str:
    """Names an item by its scene file, as ``--sources`` named that by the item."""
    return path.name.removesuffix(SCENE_SUFFIX) if path.name.endswith(SCENE_SUFFIX) else path.stem


def _items_of(path: Path) -> Iterator[Item]:
    for place, cells in csv_rows(path, (), COLUMNS, doubts_others=True):
        images, audios, videos, scenes = (
            tuple(str(path.parent / entry) for entry in _entries(cells[column]))
            for column in ("image", "audio", "video", "sources_file")
        )
        texts = tuple(_entries(cells["text"]))
        if len(scenes) > 1:
            raise InputError(f"{place}: {len(scenes)} files of sources; name one")
        media = [Path(file).stem for file in (*images, *videos, *audios)]
        names = [cells["key"], *media, *(_scene_name(Path(file)) for file in scenes), *texts]
        files = {entry: str(path.parent / entry) for column in FILES for entry in _entries(cells[column])}
        yield Item(
            safe_key(next(filter(None, names), "")),
            place,
            images,
            texts,
            audios,
            videos,
            scenes[0] if scenes else None,
            tuple(
                (files.get(name, name), weight) for name, weight in _weights(_entries(cells["weight"]), f"{place}: ")
            ),
        )


def _items_in(folder: Path, output: str | None) -> Iterator[Item]:
    """Makes an item of each medium; of several that differ in their suffix alone each is named with it."""
    made = None if output is None else to_path(output).resolve()
    if made == folder.resolve():
        raise InputError(f"{folder}: is the folder of the media, too; choose another output")
    found = [(kind, path) for kind in SUFFIXES for path in media_in(folder, kind)]
    found = [(kind, path) for kind, path in found if made is None or made not in (folder / path).resolve().parents]
    alike = Counter(path.with_suffix("") for _, path in found)
    for kind, path in found:
        name = path if alike[path.with_suffix("")] > 1 else path.with_suffix("")
        own: dict[str, Any] = {_COLUMN_OF[kind]: (str(folder / path),)}
        yield Item(safe_key(str(name)), str(folder / path), **own)


def _entries(cell: str) -> list[str]:
    return [entry.strip() for entry in cell.split(SEPARATOR) if entry.strip()]


def _weights(entries: Iterable[str], start: str) -> Iterator[tuple[str, float]]:
    for entry in entries:
        name, equals, number = entry.rpartition("=")
        try:
            yield name.strip(), float(number)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise InputError(f"{start}weight {entry!r}: needs NAME=NUMBER, such as 'rain on a tin roof=0.5'")
