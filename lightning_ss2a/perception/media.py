"""Media files as arrays: pictures on white squares, sounds as mono waveforms."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.qt_resources import open_resources

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".svg")
SOUND_SUFFIXES = (".wav", ".ogg", ".oga", ".flac", ".mp3")
LONGEST_SIDE = 512
"""Pixels of a picture's longer side, at most (SVG: exactly): about twice what small encoders see, for sharp crops."""

_VISIBLE_ALPHA = 8
"""Of 255; fainter pixels are the soft edge of a shadow, not the thing."""
_SILENT_PEAK = 1e-4
"""-80 dB of full scale."""


def read_media(root: Path, reference: str) -> bytes:
    """The bytes of a media file.

    Args:
        root: folder that relative references start from.
        reference: a path, or ``file.rcc!path`` for a file inside a Qt binary resource file.

    Raises:
        InputError: there is no such file.
    """
    outer, inside, inner = reference.partition("!")
    if inside and outer.endswith(".rcc"):
        return open_resources(root / outer).read(inner)
    try:
        return (root / reference).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{root / reference}: cannot be read ({getattr(error, 'strerror', error)})") from error


def load_image(data: bytes, name: str) -> np.ndarray:
    """A picture, cut to what is not transparent, in the middle of a white square.

    Args:
        data: the file: PNG, JPEG, WebP, GIF, BMP or SVG.
        name: its name, for its type and for messages.

    Returns:
        RGB, uint8 [side, side, 3], with a side of at most 512.

    Raises:
        InputError: it is not a picture, or entirely transparent.
    """
    image = _open_svg(data, name) if name.lower().endswith(".svg") else _open_bitmap(data, name)
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha >= _VISIBLE_ALPHA)).getbbox()
    if box is None:
        raise InputError(f"{name}: the picture is entirely transparent")
    image = image.crop(box)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    square = media_package("PIL.Image").new("RGBA", (max(image.size),) * 2, "white")
    square.alpha_composite(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
    return np.asarray(square.convert("RGB"))


def load_audio(data: bytes, name: str, sample_rate: int) -> np.ndarray:
    """A sound as the mean of its channels, resampled with a polyphase filter.

    Args:
        data: the file: anything that libsndfile reads.
        name: its name, for messages.
        sample_rate: samples per second of the result.

    Returns:
        float32 [samples].

    Raises:
        InputError: it is not a sound, empty, silent (no sample above -80 dB), or holds numbers that are not finite.
    """
    try:
        channels, rate = media_package("soundfile").read(io.BytesIO(data), dtype="float32", always_2d=True)
    except RuntimeError as error:
        reason = getattr(error, "error_string", error)  # the whole message names an address in memory
        raise InputError(f"{name}: not a sound file ({reason})") from error
    waveform = channels.mean(axis=1)
    if not len(waveform):
        raise InputError(f"{name}: the sound is empty")
    if not np.isfinite(waveform).all():
        raise InputError(f"{name}: the sound holds numbers that are not finite")
    if np.abs(waveform).max() < _SILENT_PEAK:
        raise InputError(f"{name}: the sound is silent")
    common = math.gcd(rate, sample_rate)
    if rate == sample_rate:
        return waveform
    resampled = media_package("scipy.signal").resample_poly(waveform, sample_rate // common, rate // common)
    return resampled.astype(np.float32)


def _open_bitmap(data: bytes, name: str) -> Any:
    pillow = media_package("PIL.Image")
    try:
        return pillow.open(io.BytesIO(data)).convert("RGBA")
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise InputError(f"{name}: not a picture ({error})") from error


def _open_svg(data: bytes, name: str) -> Any:
    """Draw an SVG so that its longer side has 512 pixels, whatever unit its size is in; nothing outside it is read."""
    cairosvg = media_package("cairosvg")
    try:
        drawn = cairosvg.svg2png(bytestring=data)
        image = _open_bitmap(drawn, name)
        scale = LONGEST_SIDE / max(image.size)
        if abs(scale - 1) > 0.01:
            drawn = cairosvg.svg2png(bytestring=data, scale=scale)
            image = _open_bitmap(drawn, name)
        return image
    except InputError:
        raise
    except Exception as error:  # cairosvg passes on whatever its parser, cairo or the file's numbers raise
        raise InputError(f"{name}: not an SVG picture that can be drawn ({error})") from error
