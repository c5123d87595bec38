"""Loads media files as arrays: pictures on white, sounds as mono waveforms."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.detectors.crops import CropShape, make_square
from lightning_ss2a.perception.media.containers import container_kind, decode_sound
from lightning_ss2a.perception.media.qt_resources import open_resources
from lightning_ss2a.perception.media.sound_cat import open_sound_cat
from lightning_ss2a.perception.media.svg import BITMAP_FORMATS, MOST_PIXELS, draw_svg, is_svg, is_too_large
from lightning_ss2a.perception.media.waveform import (
    SAMPLE_RATES,
    check_samples,
    check_whole,
    cut_window,
    mean_of_channels,
    resample,
)
from lightning_ss2a.perception.packages import media_package

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".svg")
SOUND_SUFFIXES = (".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".m4a", ".aac", ".wma", ".ac3", ".caf")
LONGEST_SIDE = 512
"""Pixels of a picture's longer side, at most (an SVG is drawn as large): about twice what small encoders see, so that
crops are sharp."""

_MP3_HEAD = 2048
"""Bytes of an MP3 file, after its tag, that hold its first frame."""
_VISIBLE_ALPHA = 8
"""Of 255; fainter pixels are the soft edge of a shadow, not the thing."""


def read_media(root: Path, reference: str) -> bytes:
    """Reads the bytes of a media file.

    Args:
        root: folder that relative references start from.
        reference: a path, or ``file.rcc!path`` for a file inside a Qt binary resource file, ``file.cat!7`` for a sound,
            from 0, inside a sound archive of OpenTTD.

    Raises:
        InputError: there is no such file.
    """
    outer, inside, inner = reference.partition("!")
    if inside and outer.endswith(".rcc"):
        return open_resources(root / outer).read(inner)
    if inside and outer.endswith(".cat"):
        return open_sound_cat(root / outer).read(inner)
    path = root / reference
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file")  # a folder; or a pipe or device, which may never end
        return path.read_bytes()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error})") from error


def load_image(data: bytes, name: str, crop_shape: CropShape = "padded") -> np.ndarray:
    """Loads a picture, cut to what is not transparent, on white, and made square.

    What a picture is, its content says, not its name.

    Args:
        data: the file: PNG, JPEG, WebP, GIF, BMP or SVG.
        name: its name, for messages.
        crop_shape: how it becomes a square: in its middle, or stretched.

    Returns:
        RGB, uint8 [side, side, 3], with a side of at most 512.

    Raises:
        InputError: it is not a picture, or entirely transparent.
    """
    image, visible = _open_picture(data, name)
    image = image.crop(visible)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return make_square(_on_white(image), crop_shape)


def load_picture(data: bytes, name: str, longest_side: int = LONGEST_SIDE) -> np.ndarray:
    """Loads a picture whole, in its own shape, on white: for detectors, and for boxes that were marked in it.

    Args:
        data: the file, as for :func:`load_image`.
        name: its name, for messages.
        longest_side: pixels of its longer side, at most; an SVG is drawn at 512.

    Returns:
        RGB, uint8 [height, width, 3].

    Raises:
        InputError: it is not a picture, or entirely transparent.
    """
    image, _ = _open_picture(data, name)
    image.thumbnail((longest_side, longest_side))
    return _on_white(image)


def resize_image(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes a square picture: uint8 [any, any, 3] to [side, side, 3]."""
    pillow = media_package("PIL.Image")
    return np.asarray(pillow.fromarray(image).resize((side, side), pillow.Resampling.BICUBIC))


def load_audio(data: bytes, name: str, sample_rate: int, window: tuple[float, float] | None = None) -> np.ndarray:
    """Loads a sound as the mean of its channels, resampled with a polyphase filter; see :mod:`.waveform`.

    Args:
        data: the file: anything that libsndfile reads, or a container that PyAV reads (M4A, MP4, WebM, AAC, WMA, …),
            whatever its name says.
        name: its name, for messages.
        sample_rate: samples per second of the result.
        window: seconds (start, end) of the part that is wanted; None: all of it.

    Returns:
        float32 [samples].

    Raises:
        InputError: it is not a sound, empty, silent (no sample above -80 dB), cut off, or not finite; or nothing of it
            is in the window.
    """
    return load_sound(data, name, sample_rate, window)[0]


def load_sound(
    data: bytes, name: str, sample_rate: int | None, window: tuple[float, float] | None = None
) -> tuple[np.ndarray, int]:
    """Loads a sound as :func:`load_audio` does, at a rate or (None) at its own; also gives its samples per second."""
    waveform, rate = decode_audio(data, name)
    if window is not None and rate:
        waveform = cut_window(waveform, rate, window, name)
    wanted = rate if sample_rate is None else sample_rate
    return resample(waveform, rate, wanted, name), wanted


def decode_audio(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Decodes a sound as the mean of its channels, at its own rate, unchecked.

    Args:
        data: see :func:`load_audio`.
        name: its name, for messages.

    Returns:
        float32 [samples], and samples per second.

    Raises:
        InputError: it is not a sound, or cut off.
    """
    soundfile = media_package("soundfile")
    if not data:
        raise InputError(f"{name}: not a sound file (the file is empty, 0 bytes)")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return _read_sound(file, data, name)
    except RuntimeError as error:
        if not container_kind(data[:64]):
            raise InputError(f"{name}: not a sound file ({_reason(error)})") from error
        return decode_sound(data, name)


def _read_sound(file: Any, data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Reads what libsndfile has opened: mono waveform and samples per second."""
    rate, frames = file.samplerate, file.frames
    check_samples(frames * file.channels, name)  # by the header, which soundfile trusts when it asks for memory
    try:
        waveform = mean_of_channels(file.read(dtype="float32", always_2d=True))
    except RuntimeError as error:
        raise InputError(f"{name}: the sound is cut off or damaged ({_reason(error)})") from error
    if rate >= SAMPLE_RATES[0]:
        check_whole(len(waveform) / rate, _promised_frames(file, data, len(waveform)) / rate, name)
    return waveform, rate


def _reason(error: Exception) -> str:
    return one_line(Exception(getattr(error, "error_string", error)))  # the whole message names an address in memory


def _promised_frames(file: Any, data: bytes, frames: int) -> int:
    """How many frames a file's header says that it has; those that are there where it does not say."""
    if file.format == "MP3" and not _mp3_tells_length(data):
        return frames  # libsndfile's number is a guess by the size of the file, tags at its end included
    return max(file.frames, _wav_frames(data, frames))


def _mp3_tells_length(data: bytes) -> bool:
    """Tells whether the first frame of an MP3 file, after its tag, is one that says how many there are."""
    size = zip(data[6:10], (21, 14, 7, 0), strict=True)  # of seven bits a byte
    start = 10 + sum(byte << shift for byte, shift in size) if data[:3] == b"ID3" else 0
    head = data[start : start + _MP3_HEAD]
    return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))


def _wav_frames(data: bytes, frames: int) -> int:
    """How many frames a WAV file had before it was cut off, by its header; others: those that are there.

    libsndfile reads what is there and does not tell. A size of none or all bits is that of a recorder that was not
    asked to go back and fill it in.
    """
    if data[:4] != b"RIFF" or len(data) < 8:
        return frames
    size = int.from_bytes(data[4:8], "little")
    return round(frames * (size + 8) / len(data)) if 0 < size < 0xFFFF0000 else frames


def _open_picture(data: bytes, name: str) -> tuple[Any, tuple[int, int, int, int]]:
    """Opens a picture in RGBA; also gives the box around what is not transparent."""
    image = _open_bitmap(_drawn(data, name) if is_svg(data) else data, name)
    visible = image.getchannel("A").point(lambda alpha: 255 * (alpha >= _VISIBLE_ALPHA)).getbbox()
    if visible is None:
        raise InputError(f"{name}: the picture is entirely transparent")
    return image, visible


def _on_white(image: Any) -> np.ndarray:
    """Lays a picture on white."""
    white = media_package("PIL.Image").new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return np.asarray(white.convert("RGB"))


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
        reason = "of no known type" if data and unknown else one_line(error) if data else "the file is empty, 0 bytes"
        raise InputError(f"{name}: not a picture ({reason}); needs {', '.join(BITMAP_FORMATS)} or SVG") from error


def _eight_bits(image: Any) -> Any:
    """Scales a grey picture of 16 bits to 8, which Pillow would cut at 255 instead."""
    return media_package("PIL.Image").fromarray((np.asarray(image, np.float32) / 257).round().astype(np.uint8))
