"""Encoders without weights: what they hear can be computed by hand."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.io import wavfile
from torch import Tensor

from lightning_ss2a.errors import InputError

RATE = 8000
LABELS = ("mean", "rms", "peak", "crossings")


class SmallEncoder:
    """Gives a sound's mean, root mean square, peak and rate of zero crossings; calls are counted.

    Args:
        refused_seconds: sounds of this length are refused.
    """

    identity = "small-v1"
    width = 4
    sample_rate = RATE

    def __init__(self, refused_seconds: float | None = None) -> None:
        self.refused_seconds = refused_seconds
        self.heard = 0

    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds sounds."""
        self.heard += len(waveforms)
        if any(len(waveform) == (self.refused_seconds or -1) * RATE for waveform in waveforms):
            raise InputError("a sound is refused")
        return torch.stack([_describe(waveform) for waveform in waveforms])


class SmallLabeller(SmallEncoder):
    """Has logits, too: ten times the embedding."""

    identity = "small-labeller-v1"
    labels = LABELS

    def embed_and_label(self, waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Embeds and labels sounds."""
        embeddings = self.embed(waveforms)
        return embeddings, 10 * embeddings


class LoggingLabeller(SmallLabeller):
    """Notes in a file which process hears how many sounds.

    Args:
        log: the file.
    """

    def __init__(self, log: str) -> None:
        super().__init__()
        self.log = log

    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds sounds."""
        with Path(self.log).open("a") as file:
            file.write(f"{os.getpid()} {len(waveforms)}\n")
        return super().embed(waveforms)


class SmallFrames(SmallEncoder):
    """Describes each tenth of a second by itself; of the sound, all of it."""

    identity = "small-frames-v1"

    def embed_frames(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Embeds each frame of sounds."""
        self.heard += len(waveforms)
        step = RATE // 10
        return [
            torch.stack([_describe(waveform[start : start + step]) for start in range(0, len(waveform), step)])
            for waveform in waveforms
        ]


class SmallImages:
    """Gives the mean of each colour, and of all."""

    identity = "small-images-v1"
    width = 4

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """Embeds pictures."""
        means = torch.stack([torch.from_numpy(image.mean((0, 1)) / 255).float() for image in images])
        return torch.cat([means, means.mean(1, keepdim=True)], dim=1)


class SmallTexts:
    """Gives a text's first four letters as numbers."""

    identity = "small-texts-v1"
    width = 4

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts."""
        return torch.tensor([[float(ord(letter)) for letter in text[:4]] for text in texts])

    def features(self, texts: Sequence[str]) -> None:
        """Is never asked."""
        raise NotImplementedError


class SmallSync:
    """Is sure of the offset whose number is the first byte of the video, in as many windows as seconds are heard."""

    identity = "small-sync-v1"
    sample_rate = RATE
    offsets = (-1.0, 0.0, 0.5)

    def offset_logits(self, waveforms: Sequence[np.ndarray], videos: Sequence[Path]) -> Tensor:
        """Gives logits."""
        (waveform,), (video,) = waveforms, videos
        number = video.read_bytes()[0]
        if number >= len(self.offsets):
            raise InputError(f"{video}: no such offset")
        windows = max(1, len(waveform) // RATE)
        return torch.eye(len(self.offsets))[number].mul(100).expand(1, windows, -1).clone()


def write_tone(path: Path, hertz: float = 440, amplitude: float = 0.5, seconds: float = 0.25, rate: int = RATE) -> Path:
    """Writes a tone as a WAV file of 32-bit floats; libsndfile would put the time of day into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    wavfile.write(path, rate, (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32))
    return path


def _describe(waveform: np.ndarray) -> Tensor:
    signs = np.signbit(waveform)
    crossings = float((signs[1:] != signs[:-1]).mean()) if len(waveform) > 1 else 0.0
    return torch.tensor([waveform.mean(), np.sqrt((waveform**2).mean()), np.abs(waveform).max(), crossings]).float()
