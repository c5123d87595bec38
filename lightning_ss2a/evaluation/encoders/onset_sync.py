"""Estimates how far a sound is off its video without any weights: onsets of the sound against motion of the picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.checkpoint import as_tensor
from lightning_ss2a.evaluation.encoders.video_frames import frames_at
from lightning_ss2a.metrics.functional.offset import OFFSETS
from lightning_ss2a.perception.encoders.log_mel import HOP, SAMPLE_RATE, WINDOW, log_mel_spectrogram
from lightning_ss2a.perception.media.video import PyAVReader, VideoReader

FRAME_RATE = 25
"""Per second; both curves have it."""
LONGEST_SIDE = 160
"""Pixels: motion is a mean over the picture, for which that suffices."""
LEAST_OVERLAP = 1.0
"""Seconds of both curves that a shift must leave."""
SHORTEST = max(OFFSETS) + LEAST_OVERLAP
"""Seconds of sound and of video, so that every offset can be judged."""
BANDS, SMOOTHING = 8, 3
"""Bands that the mel bands are joined to, and windows of 10 ms averaged: in noise each alone rises and falls by itself.
With clicks in noise of a seventh of their peak, a wrong class was best in 2 of 15 tries with 64 bands and 1 window."""
_STEP = round((OFFSETS[1] - OFFSETS[0]) * FRAME_RATE)
"""Frames between two classes."""


class OnsetSync:
    """Correlates the strength of a sound's onsets with the picture's motion, shifted by each offset.

    It needs no weights and knows nothing: what moves without a sound, a cut and a moving camera mislead it, and what
    repeats itself looks as synchronous one period later. Take it as a sanity check where there is no Synchformer; its
    seconds are not comparable to any that Synchformer gave.

    A positive offset means that the sound is early, as in Synchformer. A logit is the correlation times the root of the
    number of frames compared: how many standard deviations it is off that of curves that have nothing to do with each
    other. Where nothing moves or sounds all offsets are equally likely.

    Args:
        reader: of videos; None: PyAV, frames of at most 160 pixels.
    """

    sample_rate: int = SAMPLE_RATE
    offsets: tuple[float, ...] = OFFSETS

    def __init__(self, reader: VideoReader | None = None) -> None:
        self._reader = reader or PyAVReader(longest_side=LONGEST_SIDE)

    @property
    def identity(self) -> str:
        """Its name and version, and the decoder of videos."""
        return f"onset-sync-v1 ({self._reader.decoder})"

    def offset_logits(self, waveforms: Sequence[np.ndarray], videos: Sequence[Path]) -> Tensor:
        """Gives logits of the offsets, over the whole of each pair as one window: float32 [items, 1, 21].

        Args:
            waveforms: mono, 16 kHz, float32 [samples] each; as many as videos.
            videos: the files.

        Raises:
            InputError: a video cannot be read, or it or its sound is shorter than 3 s; names it.
        """
        found = [self._compare(*pair) for pair in zip(waveforms, videos, strict=True)]
        return torch.stack(found)[:, None] if found else torch.empty(0, 1, len(OFFSETS))

    def _compare(self, waveform: np.ndarray, video: Path) -> Tensor:
        onsets = onset_strength(as_tensor(waveform))
        motion = motion_energy(frames_at(self._reader, video, FRAME_RATE, len(waveform) / SAMPLE_RATE))
        frames = min(len(onsets), len(motion))
        if frames < SHORTEST * FRAME_RATE:
            raise InputError(f"{video}: {frames / FRAME_RATE:g} s of picture and sound, needs {SHORTEST:g} s")
        return offset_scores(onsets[:frames], motion[:frames])


def onset_strength(waveform: Tensor) -> Tensor:
    """Computes how much louder a sound becomes in each 1/25 s, summed over eight bands: [samples] to [frames].

    Frame n stands for what happens around n / 25 s. How a clip begins is no onset: it may be cut out of a longer sound.
    """
    frames = len(waveform) * FRAME_RATE // SAMPLE_RATE
    if len(waveform) < WINDOW + HOP * SMOOTHING:
        return torch.zeros(frames)
    bands = log_mel_spectrogram(waveform).unflatten(1, (BANDS, -1)).mean(dim=2)  # [windows, 8], every 10 ms
    levels = bands.unfold(0, SMOOTHING, 1).mean(dim=2)
    rises = levels.diff(dim=0).clamp(min=0).sum(dim=1)
    # What raises a level came in at the end of its last window, half a hop before it; on average over the windows that
    # a level spans, the rise is seen half that span later.
    times = (torch.arange(1, len(rises) + 1) * HOP + WINDOW - HOP / 2 + (SMOOTHING - 1) * HOP / 2) / SAMPLE_RATE
    numbers = (times * FRAME_RATE).round().long()
    return torch.zeros(frames + 2).index_add(0, numbers, rises)[:frames]


def motion_energy(frames: np.ndarray) -> Tensor:
    """Computes how much each frame differs from the one before: uint8 [frames, height, width, 3] to [frames].

    Frame n stands for what happens around n / 25 s; of the first nothing is known.
    """
    if not len(frames):
        return torch.zeros(0)
    grey = torch.from_numpy(frames.mean(axis=3, dtype=np.float32))
    return torch.nn.functional.pad(grey.diff(dim=0).abs().mean(dim=(1, 2)), (1, 0))


def offset_scores(onsets: Tensor, motion: Tensor) -> Tensor:
    """Scores each offset by the best correlation within its class: [frames], [frames] to [21]."""
    reach = _STEP // 2
    furthest = round(max(OFFSETS) * FRAME_RATE) + reach
    scores = torch.stack([_score(onsets, motion, shift) for shift in range(-furthest, furthest + 1)])
    return scores.unfold(0, 2 * reach + 1, _STEP).amax(dim=1)


def _score(onsets: Tensor, motion: Tensor, shift: int) -> Tensor:
    """Correlates onsets with the motion so many frames later, in standard deviations of chance."""
    heard, seen = (onsets[: len(onsets) - shift], motion[shift:]) if shift >= 0 else (onsets[-shift:], motion[:shift])
    heard, seen = heard - heard.mean(), seen - seen.mean()
    norms = heard.norm() * seen.norm()
    correlation = torch.where(norms > 1e-6, (heard * seen).sum() / norms.clamp(min=1e-6), torch.zeros(()))
    return correlation * len(heard) ** 0.5
