"""A square that jumps at known, uneven moments, and the clicks that go with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.perception.media_zoo import write_video

RATE = 16_000
SECONDS = 8.0
JUMPS = (0.9, 1.62, 2.9, 3.3, 4.58, 5.1, 6.5, 7.06)
"""Seconds."""


def jumping_square(path: Path, frame_rate: float = 25.0, seconds: float = SECONDS, side: int = 96) -> Path:
    times = np.arange(round(seconds * frame_rate)) / frame_rate

    def frame(number: int) -> np.ndarray:
        pixels = np.full((side, side, 3), 40, np.uint8)
        jumps = sum(jump <= times[number] for jump in JUMPS)
        top, left = 8 + 32 * (jumps % 2), 4 + 8 * jumps % (side - 32)
        pixels[top : top + 24, left : left + 24] = (220, 180, 60)
        return pixels

    return write_video(path, times.tolist(), frames=frame)


def clicks(early: float, jumps: Sequence[float] = JUMPS, seconds: float = SECONDS) -> np.ndarray:
    """A sound whose clicks come so many seconds before the jumps, in soft noise."""
    sound = np.random.default_rng(0).normal(0, 0.002, round(seconds * RATE))
    burst = 0.7 * np.exp(-np.arange(800) / 120) * np.sin(np.arange(800) * 0.9)
    for start in (round((jump - early) * RATE) for jump in jumps):
        if 0 <= start < len(sound) - 800:
            sound[start : start + 800] += burst
    return sound.astype(np.float32)
