"""Reads lists of picture-sound pairs from a CSV file or a folder."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightning_ss2a.builders.csv_rows import NO_TEXT, csv_rows
from lightning_ss2a.data import PAIR_ORIGINS
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import files_below
from lightning_ss2a.perception.media.files import IMAGE_SUFFIXES, SOUND_SUFFIXES

REQUIRED = ("image", "sound")
OPTIONAL = ("name", "class", "group", "pair_origin")


@dataclass(frozen=True)
class Pair:
    """A picture and its sound.

    Attributes:
        place: where it is listed, for messages: ``pairs.csv row 4``.
        image: path of the picture; see :func:`lightning_ss2a.perception.media.files.read_media`.
        sound: path of the sound.
        name: what is seen and heard.
        class_name: kind of thing.
        group: rows of one group stay together; None: only what shares a file does.
        pair_origin: one of ``annotated``, ``curated``, ``translated``.
    """

    place: str
    image: str
    sound: str
    name: str
    class_name: str
    group: str | None
    pair_origin: str

    @property
    def key(self) -> str:
        """A name of its own that does not depend on the order of rows."""
        return row_key(self.name, self.image, self.sound)


def row_key(name: str, shown: str, sound: str) -> str:
    """Makes the key of a row from its name, its picture or text, and its sound."""
    digest = hashlib.sha256(f"{shown}\0{sound}".encode()).hexdigest()
    return f"{re.sub('[^A-Za-z0-9]+', '_', name).strip('_') or 'pair'}-{digest[:10]}"


def read_pairs(source: Path) -> list[Pair]:
    """Reads the pairs of a CSV file or of a folder.

    A CSV file has a header with the columns ``image`` and ``sound`` (paths). Optional columns: ``name`` (default: the
    picture's file name without suffix), ``class`` (default: the name), ``group`` (default: only what shares a file
    stays together), ``pair_origin`` (default: ``annotated``). Further columns are not read; an empty cell is a missing
    one.

    In a folder, files of the same name but for the suffix are pairs (each picture with each sound), and the name of the
    folder that they lie in is their class. Hidden files are not looked at; links to folders are followed.

    Raises:
        InputError: names file and row of what is missing, wrong or listed twice.
    """
    if source.is_dir():
        pairs = list(_from_folder(source))
    else:
        pairs = [_pair(cells, place) for place, cells in csv_rows(source, REQUIRED, OPTIONAL)]
    if not pairs:
        raise InputError(f"{source}: holds no pairs of a picture and a sound")
    first: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        if (earlier := first.setdefault((pair.image, pair.sound), pair)) is not pair:
            raise InputError(f"{pair.place}: the same picture and sound as {earlier.place}; remove one of them")
    return pairs


def _pair(given: dict[str, str], place: str) -> Pair:
    origin = given["pair_origin"] or PAIR_ORIGINS[0]
    if origin not in PAIR_ORIGINS:
        raise InputError(f"{place}: pair_origin {origin!r} is not one of {', '.join(PAIR_ORIGINS)}")
    name = given["name"] or PurePosixPath(given["image"].rpartition("!")[2]).stem
    return Pair(
        place,
        given["image"],
        given["sound"],
        name,
        given["class"] or name,
        group=given["group"] or None,
        pair_origin=origin,
    )


def _from_folder(folder: Path) -> Iterator[Pair]:
    files: dict[PurePosixPath, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for path in sorted(map(PurePosixPath, files_below(folder))):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES + SOUND_SUFFIXES:
            if NO_TEXT.search(str(path)):
                raise InputError(f"{str(folder / path)!r}: its name is not readable text (UTF-8); rename it")
            files[path.with_suffix("")][suffix in SOUND_SUFFIXES].append(str(path))
    for stem, (images, sounds) in files.items():
        class_name = stem.parent.name or folder.resolve().name
        for image in images:
            for sound in sounds:
                place = f"{folder / image} and {Path(sound).name}"
                yield Pair(place, image, sound, stem.name, class_name, group=None, pair_origin=PAIR_ORIGINS[0])
