"""Draws views of pictures and sounds: several looks at the same picture, several takes of the same sound.

The first view is the thing itself; the others are drawn at random from a generator that the caller seeds, so equal
media give equal views.
"""

import numpy as np

CROP_AREA = (0.5, 1.0)
"""Part of the picture's area that a crop keeps."""
COLOUR_CHANGE = 0.2
"""Brightness, contrast and saturation are multiplied by 1 ± this, at most."""
SEGMENT_PART = (0.5, 1.0)
"""Part of the sound that a segment keeps."""
SHORTEST_SEGMENT = 1.0
"""Seconds; a shorter sound stays whole and is moved within so much silence."""
GAIN_DECIBELS = 6.0
"""A view is louder or quieter by so much, at most."""

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def image_views(image: np.ndarray, views: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Draws views of a picture: itself, then random square crops of it, mirrored and recoloured.

    Args:
        image: uint8 [side, side, 3].
        views: how many.
        generator: source of chance.

    Returns:
        ``views`` square pictures, uint8.
    """
    return [image, *(_image_view(image, generator) for _ in range(views - 1))]


def audio_views(waveform: np.ndarray, sample_rate: int, views: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Draws views of a sound: itself, then random segments, louder or quieter; short ones move within 1 s of silence.

    Args:
        waveform: float32 [samples].
        sample_rate: samples per second.
        views: how many.
        generator: source of chance.

    Returns:
        ``views`` waveforms within -1 to 1 if the sound is.
    """
    return [waveform, *(_audio_view(waveform, sample_rate, generator) for _ in range(views - 1))]


def _image_view(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    side = max(1, round(len(image) * generator.uniform(*CROP_AREA) ** 0.5))
    top, left = generator.integers(0, len(image) - side + 1, size=2)
    crop = image[top : top + side, left : left + side]
    if generator.random() < 0.5:
        crop = crop[:, ::-1]
    return _recolour(crop, generator)


def _recolour(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    brightness, contrast, saturation = generator.uniform(1 - COLOUR_CHANGE, 1 + COLOUR_CHANGE, size=3)
    pixels = image.astype(np.float32) * brightness
    mean = (pixels @ _GREY).mean()
    pixels = mean + (pixels - mean) * contrast
    grey = (pixels @ _GREY)[..., None]
    return np.clip(grey + (pixels - grey) * saturation, 0, 255).round().astype(np.uint8)


def _audio_view(waveform: np.ndarray, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    shortest = round(SHORTEST_SEGMENT * sample_rate)
    if len(waveform) <= shortest:
        before = generator.integers(0, shortest - len(waveform) + 1)
        segment = np.pad(waveform, (before, shortest - len(waveform) - before))
    else:
        samples = max(shortest, round(len(waveform) * generator.uniform(*SEGMENT_PART)))
        # The loudest sample stays in, so that no view is the silence between two sounds.
        loudest = int(np.abs(waveform).argmax())
        start = generator.integers(max(0, loudest - samples + 1), min(loudest, len(waveform) - samples) + 1)
        segment = waveform[start : start + samples]
    peak = max(float(np.abs(waveform).max()), 1e-9)
    # Louder only as far as nothing is clipped that was not.
    gain = min(10 ** (generator.uniform(-GAIN_DECIBELS, GAIN_DECIBELS) / 20), max(1.0, 1 / peak))
    return (segment * gain).astype(np.float32)
