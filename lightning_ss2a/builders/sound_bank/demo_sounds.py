"""Lists the sounds of the demo's pairs, each with its credits and the fold that its rows are in."""

import csv
import re
from pathlib import Path

from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.builders.sound_bank.bank import BankSound
from lightning_ss2a.builders.sound_bank.listing import ListedSound
from lightning_ss2a.data import ShardReader
from lightning_ss2a.data.format.columns import dense
from lightning_ss2a.errors import InputError

GAME = "lincity_"
"""How the demo marks the names of a game's buildings, such as ``lincity_FireStation``."""


def list_demo_sounds(pairs: Path, dataset: Path) -> list[ListedSound]:
    """Lists the sounds of the annotated pairs of a data set, each once.

    Its author and licence are those of the column ``sound_credit``, whose first part is the author; its group and split
    are those of its rows in the data set, so that a measure on held-out pictures may leave out what belongs to them.

    Args:
        pairs: CSV file that the data set was built from.
        dataset: folder of the data set, of kind pairs.

    Raises:
        InputError: a pair is not in the data set, or has no credit.
    """
    rows = _rows_by_key(dataset)
    with pairs.open(newline="", encoding="utf-8-sig") as file:
        credits = list(csv.DictReader(file))
    sounds: dict[str, ListedSound] = {}
    for pair, credit in zip(read_pairs(pairs), credits, strict=True):
        if pair.key not in rows:
            raise InputError(f"{pair.place}: not in {dataset}; build that again (ss2a shards demo)")
        author, _, licence = credit["sound_credit"].partition("; ")
        if not licence:
            raise InputError(f"{pair.place}: sound_credit must be AUTHOR; LICENCE")
        split, group = rows[pair.key]
        about = BankSound(
            pair.sound, _label(pair.name), author, licence, pair.sound.partition("/")[0], str(group), split
        )
        sounds.setdefault(pair.sound, ListedSound(pair.place, about))
    return list(sounds.values())


def _rows_by_key(dataset: Path) -> dict[str, tuple[str, int]]:
    """Finds split and group of each row of a data set, by its key."""
    reader = ShardReader(dataset)
    found = {}
    for split in reader.manifest.splits:
        columns = reader.read_split(split, ("key", "group"))
        for key, group in zip(dense(columns["key"]), dense(columns["group"]), strict=True):
            found[key.decode()] = split, int(group)
    return found


def _label(name: str) -> str:
    """Writes a name as words: ``fire station``."""
    if name.startswith(GAME):
        name = re.sub("(?<=[a-z])(?=[A-Z])", " ", name.removeprefix(GAME)).lower()
    return re.sub("[_-]", " ", name)
