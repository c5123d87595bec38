"""Small pictures and sounds as the bytes of files, and encoders that are quick and can be checked by hand."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

from lightning_ss2a.data import LabelHead
from lightning_ss2a.errors import InputError


def result_or_error(function: Callable, *arguments) -> tuple:
    """(result, None), or (None, message) if it raises an InputError; any other exception is the test's failure."""
    try:
        return function(*arguments), None
    except InputError as error:
        return None, str(error)


def picture_file(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(file, kind, **options)
    return file.getvalue()


def sound_file(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def plain_picture(colour: tuple[int, int, int], side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def sine(frequency: float, seconds: float = 0.5, rate: int = 16_000, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


class MeanColour:
    """A picture encoder whose embedding is the mean colour; counts the pictures that it was given."""

    identity, width = "mean-colour", 3

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        self.encoded += len(images)
        return torch.stack([torch.from_numpy(image.reshape(-1, 3).mean(axis=0)).float() / 255 for image in images])


class Loudness:
    """A sound encoder whose embedding is (root mean square, peak); counts the sounds that it was given."""

    identity, width, sample_rate = "loudness", 2, 16_000

    def __init__(self, head: LabelHead | None = None) -> None:
        self.encoded = 0
        self.head = head

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        self.encoded += len(waveforms)
        return torch.tensor([[float(np.sqrt((w**2).mean())), float(np.abs(w).max())] for w in waveforms])

    def label_head(self) -> LabelHead | None:
        return self.head


class Spectrum(Loudness):
    """A sound encoder whose embedding is how much of a sound is in each of 64 bands of 125 Hz."""

    identity, width = "spectrum", 64

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        self.encoded += len(waveforms)
        return torch.stack([torch.from_numpy(self._bands(waveform)).float() for waveform in waveforms])

    def _bands(self, waveform: np.ndarray) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(waveform, self.sample_rate))[: 64 * 125]
        return spectrum.reshape(64, 125).mean(axis=1)
