"""The rule that found the demo's curated pairs: pictures paired with sounds by their names alone."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightning_ss2a.builders.demo import PACKAGES
from lightning_ss2a.builders.pair_list import Pair
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.files import IMAGE_SUFFIXES, read_media
from lightning_ss2a.perception.media.qt_resources import QtResources

MOST_OF_A_NAME = 8
MOST_OF_A_SERIES = 2
"""Pictures in one folder whose file names differ only in numbers: frames of an animation, pieces of a puzzle."""

_PREFIX = "lincity_"
"""Of names in the demo's list; says where a sound is from, not what it is."""


@dataclass(frozen=True)
class Match:
    """A picture, and the sound that goes by its name.

    Attributes:
        image: path of the picture.
        pair: the pair that has the sound.
        caption: what the picture's package says that it shows; empty if it says nothing.
        found_in: 0: the picture's file name says the sound's name, 1: its caption does, 2: its folder's name does.
    """

    image: str
    pair: Pair
    caption: str
    found_in: int


def words(text: str) -> list[str]:
    """Words of a name: lower case, of two letters or more, a plural's s taken off; ``redApples_02``: red, apple."""
    parted = re.sub("([a-z])([A-Z])", r"\1 \2", text)
    return [_singular(word) for word in re.findall("[a-z]{2,}", parted.lower())]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def named(text: str, names: Iterable[str]) -> str | None:
    """The name all of whose words are in a text: the one of most words, then the one that ends last.

    English puts the thing last: a green duck is a duck.
    """
    said = words(text)

    def rank(name: str) -> tuple[int, int] | None:
        own = words(name.removeprefix(_PREFIX))
        fits = own and set(own) <= set(said)
        return (len(own), max(len(said) - 1 - said[::-1].index(word) for word in own)) if fits else None

    ranks = {name: found for name in names if (found := rank(name))}
    return max(ranks, key=lambda name: ranks[name], default=None)


def curate(root: Path, annotated: Sequence[Pair]) -> list[Match]:
    """Pictures under a folder that no pair has yet, each with a sound whose name it goes by.

    The name is looked for in the picture's file name, then in its caption (the first line of a ``.txt`` file of the
    same name, as Tux Paint has them), then in its folder's name. Of the sounds of a name it gets the first one of its
    own package (the first part of its path), else the first one. Of a name at most :data:`MOST_OF_A_NAME` pictures are
    taken, those whose file name says it first; of a series at most :data:`MOST_OF_A_SERIES`.

    Nobody looks at the pictures: what their names mislead to stays in.

    Args:
        root: folder of the media.
        annotated: the pairs that there are, whose names are used.
    """
    taken, names = {pair.image for pair in annotated}, list(dict.fromkeys(pair.name for pair in annotated))
    found: list[tuple[int, str, str, str]] = []
    for image in pictures(root):
        path, caption = PurePosixPath(image.rpartition("!")[2]), _caption(root, image)
        for place, text in enumerate((path.stem, caption, path.parent.name)):
            if image not in taken and (name := named(text, names)):
                found.append((place, image, name, caption))
                break
    drawn = {PurePosixPath(image).with_suffix("") for image in taken}
    matches, of_name, of_series = [], Counter[str](), Counter[tuple]()
    for place, image, name, caption in sorted(found):
        path = PurePosixPath(image)
        series = (path.parent, *words(path.stem))
        if (
            of_name[name] < MOST_OF_A_NAME
            and of_series[series] < MOST_OF_A_SERIES
            and path.with_suffix("") not in drawn
        ):
            drawn.add(path.with_suffix(""))
            of_name[name] += 1
            of_series[series] += 1
            matches.append(Match(image, _sound_for(image, name, annotated), caption, place))
    return matches


def pictures(root: Path) -> Iterator[str]:
    """References to all pictures under a folder, also those inside Qt resource files, in order."""
    folders = [root / package.name for package in PACKAGES]  # beside them are those of the labelled sounds
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        reference = path.relative_to(root).as_posix()
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield reference
        elif path.suffix == ".rcc":
            names = QtResources(path).names
            yield from (f"{reference}!{name}" for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def _caption(root: Path, image: str) -> str:
    try:
        text = "" if "!" in image else read_media(root, str(PurePosixPath(image).with_suffix(".txt"))).decode()
    except (InputError, UnicodeDecodeError):
        return ""
    return text.partition("\n")[0].strip()


def _sound_for(image: str, name: str, annotated: Sequence[Pair]) -> Pair:
    of_name = [pair for pair in annotated if pair.name == name]
    package = image.partition("/")[0]
    return next((pair for pair in of_name if pair.sound.partition("/")[0] == package), of_name[0])
