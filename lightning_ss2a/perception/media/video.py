"""Reads videos: even frames and the sound of a clip, from one decode of its file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Clip:
    """What was read of a video.

    Attributes:
        frames: RGB, upright, uint8 [frames, height, width, 3].
        timestamps: the moment that each frame stands for, float32 [frames]: seconds from the start of the clip.
        presented: when each frame came on the screen, float32 [frames]: at or before its moment, but for moments
            before the first frame; equal where one frame stands for several moments.
        seconds: length of the clip.
        waveform: its sound, mono, float32 [samples], from the start of the clip on; None: there is none to use.
        no_sound: why there is no waveform; empty if there is.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    presented: np.ndarray
    seconds: float
    waveform: np.ndarray | None
    no_sound: str


@runtime_checkable
class VideoReader(Protocol):
    """Reads clips of videos.

    Attributes:
        decoder: the decoding library and its version, for manifests: decoders differ.
    """

    decoder: str

    def read(
        self,
        path: Path,
        *,
        frames: int = 1,
        sample_rate: int | None = None,
        window: tuple[float, float] | None = None,
        name: str | None = None,
    ) -> Clip:
        """Reads frames and sound of a clip.

        Args:
            path: the file.
            frames: how many, even over the clip: each is what the screen shows at the centre of one of so many equal
                parts, so that 1 is the central frame.
            sample_rate: samples per second of the waveform; None: the sound is not read.
            window: seconds (start, end) of the clip; None: all of the video.
            name: the file's name, for messages; default: the path.

        Raises:
            InputError: the file is no video that can be used; says why. A sound that cannot be used is no error.
        """
