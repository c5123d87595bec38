"""Loads media files as arrays: pictures on white squares, sounds as mono waveforms."""

import io
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.media.qt_resources import open_resources
from lightning_ss2a.perception.media.svg import BITMAP_FORMATS, MOST_PIXELS, draw_svg, is_too_large
from lightning_ss2a.perception.packages import media_package

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".svg")
SOUND_SUFFIXES = (".wav", ".ogg", ".oga", ".flac", ".mp3")
LONGEST_SIDE = 512
"""Pixels of a picture's longer side, at most (an SVG is drawn as large): about twice what small encoders see, so that
crops are sharp."""

MOST_SAMPLES = 1 << 28
"""Of all channels of a sound: 50 minutes of stereo at 44.1 kHz, 1 GB once unpacked."""
SAMPLE_RATES = (1_000, 768_000)
"""Samples per second of a sound; others are damage, and would make its resampled form or the filter huge."""

_VISIBLE_ALPHA = 8
"""Of 255; fainter pixels are the soft edge of a shadow, not the thing."""
_SILENT_PEAK = 1e-4
"""-80 dB of full scale."""


def read_media(root: Path, reference: str) -> bytes:
    """Reads the bytes of a media file.

    Args:
        root: folder that relative references start from.
        reference: a path, or ``file.rcc!path`` for a file inside a Qt binary resource file.

    Raises:
        InputError: there is no such file.
    """
    outer, inside, inner = reference.partition("!")
    if inside and outer.endswith(".rcc"):
        return open_resources(root / outer).read(inner)
    path = root / reference
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file")  # a folder; or a pipe or device, which may never end
        return path.read_bytes()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error})") from error


def load_image(data: bytes, name: str) -> np.ndarray:
    """Loads a picture, cut to what is not transparent, in the middle of a white square.

    Args:
        data: the file: PNG, JPEG, WebP, GIF, BMP or SVG.
        name: its name, for its type and for messages.

    Returns:
        RGB, uint8 [side, side, 3], with a side of at most 512.

    Raises:
        InputError: it is not a picture, or entirely transparent.
    """
    image = _open_bitmap(_drawn(data, name) if name.lower().endswith(".svg") else data, name)
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha >= _VISIBLE_ALPHA)).getbbox()
    if box is None:
        raise InputError(f"{name}: the picture is entirely transparent")
    image = image.crop(box)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    square = media_package("PIL.Image").new("RGBA", (max(image.size),) * 2, "white")
    square.alpha_composite(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
    return np.asarray(square.convert("RGB"))


def resize_image(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes a square picture: uint8 [any, any, 3] to [side, side, 3]."""
    pillow = media_package("PIL.Image")
    return np.asarray(pillow.fromarray(image).resize((side, side), pillow.Resampling.BICUBIC))


def load_audio(data: bytes, name: str, sample_rate: int) -> np.ndarray:
    """Loads a sound as the mean of its channels, resampled with a polyphase filter.

    Args:
        data: the file: anything that libsndfile reads.
        name: its name, for messages.
        sample_rate: samples per second of the result.

    Returns:
        float32 [samples].

    Raises:
        InputError: it is not a sound, empty, silent (no sample above -80 dB), or holds numbers that are not finite.
    """
    soundfile = media_package("soundfile")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, samples = file.samplerate, file.frames * file.channels
            if samples > MOST_SAMPLES:  # by the header, which soundfile trusts when it asks for memory
                raise InputError(f"{name}: the sound has {samples} samples, more than {MOST_SAMPLES}; cut it")
            channels = file.read(dtype="float32", always_2d=True)
    except RuntimeError as error:
        reason = getattr(error, "error_string", error)  # the whole message names an address in memory
        raise InputError(f"{name}: not a sound file ({reason})") from error
    if not SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]:
        raise InputError(f"{name}: {rate} samples per second, needs {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]}")
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


def _drawn(data: bytes, name: str) -> bytes:
    try:
        return draw_svg(data, LONGEST_SIDE)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _open_bitmap(data: bytes, name: str) -> Any:
    """Opens a bitmap in RGBA, turned as its camera was held (EXIF); of an animated one the first frame."""
    pillow = media_package("PIL.Image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own limit of pixels, and about camera notes that are damaged
            image = pillow.open(io.BytesIO(data), formats=BITMAP_FORMATS)
            if is_too_large(image):
                raise ValueError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS}")
            image = media_package("PIL.ImageOps").exif_transpose(image)
            return (_eight_bits(image) if image.mode.startswith("I") else image).convert("RGBA")
    except Exception as error:  # Pillow passes on whatever its decoders raise: struct.error, zlib.error, SyntaxError
        unknown = isinstance(error, pillow.UnidentifiedImageError)
        reason = "of no known type" if unknown else one_line(error)
        raise InputError(f"{name}: not a picture ({reason}); needs {', '.join(BITMAP_FORMATS)} or SVG") from error


def _eight_bits(image: Any) -> Any:
    """Scales a grey picture of 16 bits to 8, which Pillow would cut at 255 instead."""
    return media_package("PIL.Image").fromarray((np.asarray(image, np.float32) / 257).round().astype(np.uint8))
