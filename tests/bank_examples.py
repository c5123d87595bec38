"""A small bank of tones and noise, and an encoder that hears pitch only and can be checked by hand."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.data import LabelHead
from tests.perception.media_files import sine, sound_file

EDGES = (0, 150, 300, 600, 1200, 2400, 4800, 8001)
"""Of the bands, in hertz: one octave each."""
TONES = {"low": 100.0, "middle": 440.0, "high": 3000.0}


class Bands:
    """A sound encoder whose embedding is the amplitude in each of seven octaves, whatever the level."""

    identity, width, sample_rate = "bands", len(EDGES) - 1, 16_000

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        return torch.stack([self._embed(waveform) for waveform in waveforms])

    def label_head(self) -> LabelHead | None:
        return None

    def _embed(self, waveform: np.ndarray) -> Tensor:
        power = np.abs(np.fft.rfft(waveform.astype(np.float64))) ** 2
        frequencies = np.fft.rfftfreq(len(waveform), 1 / self.sample_rate)
        bands = [power[(frequencies >= low) & (frequencies < high)].sum() for low, high in pairwise(EDGES)]
        amplitudes = np.sqrt(bands)
        return torch.from_numpy(amplitudes / np.linalg.norm(amplitudes)).float()


def noise(seconds: float, rate: int = 16_000, seed: int = 0, peak: float = 0.5) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (peak * samples / np.abs(samples).max()).astype(np.float32)


def make_sounds(folder: Path, seconds: float = 3.0) -> Path:
    """A folder of one tone a label, and noise."""
    for label, frequency in TONES.items():
        (folder / label).mkdir(parents=True)
        (folder / label / "tone.wav").write_bytes(sound_file(sine(frequency, seconds)))
    (folder / "noise.wav").write_bytes(sound_file(noise(seconds)))
    return folder
