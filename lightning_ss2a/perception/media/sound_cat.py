"""Reads sound archives of OpenTTD (``.cat``), lists of named WAV files."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lightning_ss2a.errors import InputError

ENTRY = struct.Struct("<2I")
"""Position and number of bytes of a sound, little-endian."""
NEW_FORMAT = 1 << 31
"""Set in the first position: sounds are whole WAV files. Without it they are headless samples of the first version."""


@dataclass(frozen=True)
class CatSound:
    """A sound of an archive.

    Attributes:
        name: what the archive says of it: its label, its authors, its licence.
        content: a WAV file.
    """

    name: str
    content: bytes


class SoundCat:
    """The sounds of a ``.cat`` file.

    The format (OpenTTD, ``src/sound.cpp``, ``OpenBankFile``): a table of (position, bytes) for each sound, which ends
    where the first sound begins; at each position a name after its length in one byte, and a WAV file of that many
    bytes. The highest bit of a position marks the format.

    Args:
        path: the file.

    Raises:
        InputError: missing, damaged, or of the format without names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = path.read_bytes()
            (first, _) = ENTRY.unpack_from(data)
        except (OSError, struct.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be read as a sound archive of OpenTTD ({reason})") from error
        table = first & ~NEW_FORMAT
        if not first & NEW_FORMAT or not 0 < table <= len(data) or table % ENTRY.size:
            raise InputError(f"{path}: not a sound archive of OpenTTD with named WAV files")
        entries = ENTRY.iter_unpack(data[:table])
        self.sounds = tuple(self._sound(data, number, *entry) for number, entry in enumerate(entries))

    def read(self, number: str) -> bytes:
        """Gives the WAV file of a sound, by its number from 0, as text.

        Raises:
            InputError: no such sound.
        """
        if not (number.isascii() and number.isdigit() and int(number) < len(self.sounds)):
            raise InputError(f"{self.path}: holds no sound {number!r}, only 0 to {len(self.sounds) - 1}")
        return self.sounds[int(number)].content

    def _sound(self, data: bytes, number: int, position: int, length: int) -> CatSound:
        start = position & ~NEW_FORMAT
        name_length = data[start] if start < len(data) else 0
        name = data[start + 1 : start + 1 + name_length]
        content = data[start + 1 + name_length : start + 1 + name_length + length]
        if len(name) != name_length or len(content) != length or content[:4] != b"RIFF":
            raise InputError(f"{self.path}: sound {number} is cut off, or not a WAV file")
        return CatSound(name.rstrip(b"\0").decode("utf-8", errors="replace"), content)


@lru_cache(maxsize=2)
def open_sound_cat(path: Path) -> SoundCat:
    """Opens a sound archive; the last two are cached, since sounds of one file come one after the other."""
    return SoundCat(path)
