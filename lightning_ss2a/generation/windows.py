"""Cuts a video into windows that are sounded one by one, and joins their sounds with cross-fades of equal power."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_ss2a.perception.media.stretch import rising


@dataclass(frozen=True)
class Window:
    """A part of a video.

    Attributes:
        start: in seconds.
        seconds: how long it is.
    """

    start: float
    seconds: float

    @property
    def end(self) -> float:
        """Where it ends, in seconds."""
        return self.start + self.seconds


def windows_of(total: float, seconds: float, overlap: float) -> list[Window]:
    """Covers a length by windows of equal length, evenly spread: the first starts with it, the last ends with it.

    Args:
        total: what is covered, in seconds, above 0.
        seconds: of a window; what is not longer is one window.
        overlap: of neighbours, at least, in seconds; below ``seconds``.
    """
    if total <= seconds:
        return [Window(0.0, total)]
    count = math.ceil((total - overlap) / (seconds - overlap))
    return [Window(number * (total - seconds) / (count - 1), seconds) for number in range(count)]


def join(sounds: Sequence[np.ndarray], windows: Sequence[Window], sample_rate: int) -> np.ndarray:
    """Joins the sounds of windows: where two overlap, one fades out as the other fades in, and their power stays.

    The weights are a cosine and a sine, whose squares sum to 1: sounds that have nothing to do with each other keep
    their loudness. Where three windows overlap, they are brought back to that.

    Args:
        sounds: float32 [samples] of each window, of its length.
        windows: in their order.
        sample_rate: samples per second.

    Returns:
        float32 [samples], from the start of the first to the end of the last.
    """
    starts = [round(window.start * sample_rate) for window in windows]
    ends = [start + len(sound) for start, sound in zip(starts, sounds, strict=True)]
    joined, power = np.zeros((2, max(ends)), np.float32)
    for number, sound in enumerate(sounds):
        gain = np.ones(len(sound), np.float32)
        if number and (shared := ends[number - 1] - starts[number]) > 0:
            gain[:shared] *= rising(shared)
        if number + 1 < len(sounds) and (shared := ends[number] - starts[number + 1]) > 0:
            gain[-shared:] *= rising(shared)[::-1]
        joined[starts[number] : ends[number]] += gain * sound
        power[starts[number] : ends[number]] += gain * gain
    power[power == 0] = 1  # a sample between two windows that touch, left out by rounding
    return joined / np.sqrt(power)


def of_length(sound: np.ndarray, samples: int) -> np.ndarray:
    """Cuts a sound, or adds silence, so that it has a number of samples."""
    return np.pad(sound[:samples], (0, max(0, samples - len(sound))))
