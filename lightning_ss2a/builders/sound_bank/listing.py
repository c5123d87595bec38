"""Lists labelled sounds: those of a CSV file, or of a folder."""

from dataclasses import dataclass
from pathlib import Path

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.builders.listing.media_files import media_in
from lightning_ss2a.builders.sound_bank.bank import COLUMNS, REQUIRED, BankSound
from lightning_ss2a.errors import InputError


@dataclass(frozen=True)
class ListedSound:
    """A sound that a bank is to hold.

    Attributes:
        place: where it is listed, for messages: ``sounds.csv row 4``.
        about: what is known of it; its file is a path as
            :func:`lightning_ss2a.perception.media.files.read_media` reads it.
    """

    place: str
    about: BankSound


def list_sounds(source: Path) -> list[ListedSound]:
    """Lists the labelled sounds of a CSV file or of a folder.

    A CSV file has the columns ``file`` and ``label``, and may have ``author``, ``licence``, ``source``, ``group`` and
    ``split``. In a folder the label of a sound is the name of the folder that it lies in, with spaces for underscores;
    of one that lies in none, its own name without suffix. Hidden files are not looked at.

    Raises:
        InputError: names file and row of what is missing, wrong or listed twice.
    """
    if source.is_dir():
        listed = [ListedSound(str(source / path), _about(path.as_posix())) for path in media_in(source, "sound")]
    else:
        rows = csv_rows(source, REQUIRED, COLUMNS[2:])
        listed = [ListedSound(place, BankSound(**cells)) for place, cells in rows]
    if not listed:
        raise InputError(f"{source}: holds no labelled sounds")
    first: dict[str, ListedSound] = {}
    for sound in listed:
        if (earlier := first.setdefault(sound.about.file, sound)) is not sound:
            raise InputError(f"{sound.place}: the same file as {earlier.place}; remove one of them")
    return listed


def _about(path: str) -> BankSound:
    folder, _, name = path.rpartition("/")
    label = folder.rpartition("/")[2] or name.rpartition(".")[0]
    return BankSound(path, label.replace("_", " ").strip() or label)
