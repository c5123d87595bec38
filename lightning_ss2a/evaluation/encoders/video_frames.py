"""Reads a video at an even rate of frames, whatever its own is."""

import math
from pathlib import Path

import numpy as np

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.video import VideoReader

_SLACK = 1e-3
"""Seconds by which a time may be rounded."""


def frames_at(reader: VideoReader, path: Path, rate: int, seconds: float) -> np.ndarray:
    """Reads the frames of a video from its start on: uint8 [frames, height, width, 3].

    Each is what the screen shows in the middle of its part of 1 / ``rate`` seconds.

    Args:
        reader: of videos.
        path: the file.
        rate: frames per second.
        seconds: to read, if the video lasts so long.

    Raises:
        InputError: the file is no video that can be used, or holds not one frame of that rate.
    """
    while (count := math.floor((seconds + _SLACK) * rate)) > 0:
        clip = reader.read(path, frames=count, window=(0.0, count / rate))
        if clip.seconds >= count / rate - _SLACK:
            return clip.frames
        seconds = clip.seconds  # the video ends earlier, and the frames stood closer
    raise InputError(f"{path}: shorter than 1/{rate} s")
