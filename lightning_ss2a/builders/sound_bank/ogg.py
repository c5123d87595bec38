"""Writes sounds as Ogg Vorbis, the same bytes every time."""

import io

import numpy as np

from lightning_ss2a.perception.packages import media_package

_SERIAL = slice(14, 18)
_CHECKSUM = slice(22, 26)
"""Fields of an Ogg page (RFC 3533, section 6)."""
_POLYNOMIAL = 0x04C11DB7


def encode_ogg(waveform: np.ndarray, sample_rate: int, quality: float) -> bytes:
    """Encodes a mono sound as Ogg Vorbis.

    Encoders number each stream at random, so that a bank that is built again would be another; here all are number 0.

    Args:
        waveform: float32 [samples], within -1 to 1.
        sample_rate: samples per second.
        quality: 0 (smallest) to 1.

    Returns:
        the file.
    """
    file = io.BytesIO()
    media_package("soundfile").write(
        file, waveform, sample_rate, format="OGG", subtype="VORBIS", compression_level=1 - quality
    )
    return with_serial(file.getvalue(), 0)


def with_serial(ogg: bytes, serial: int) -> bytes:
    """Gives the pages of an Ogg file another stream number, and their new checksums."""
    pages = bytearray(ogg)
    start = 0
    while start < len(pages):
        segments = pages[start + 26]
        lengths = pages[start + 27 : start + 27 + segments]
        end = start + 27 + segments + sum(lengths)
        page = pages[start:end]
        page[_SERIAL] = serial.to_bytes(4, "little")
        page[_CHECKSUM] = bytes(4)
        page[_CHECKSUM] = _checksum(page).to_bytes(4, "little")
        pages[start:end] = page
        start = end
    return bytes(pages)


def _checksum(page: bytes | bytearray) -> int:
    register = 0
    for byte in page:
        register = (register << 8 & 0xFFFFFFFF) ^ _TABLE[register >> 24 ^ byte]
    return register


def _table_entry(byte: int) -> int:
    register = byte << 24
    for _ in range(8):
        register = (register << 1 ^ (_POLYNOMIAL if register & 0x80000000 else 0)) & 0xFFFFFFFF
    return register


_TABLE = tuple(map(_table_entry, range(256)))
