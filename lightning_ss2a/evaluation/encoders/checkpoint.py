"""What encoders of waveforms share whose weights are one file of another project, at a path that the user gives."""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.running import LoadedWhenUsed, check_batch_size, load_once, usable_device
from lightning_ss2a.perception.identity import identify
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, find_weights, obtain_weights

SAMPLE_RATE = 16_000
"""Of every encoder here."""


class CheckpointEncoder(LoadedWhenUsed):
    """Finds, names and loads the one file of an encoder; what it computes, the encoder says.

    Args:
        path: the file, by any name, or the folder that holds it under its own.
        batch_size: sounds at once.
        device: where it runs, such as ``cuda:0``.

    Raises:
        InputError: the batch size is below 1.
    """

    part: ClassVar[str]
    model: ClassVar[str]
    file: ClassVar[str]
    licence: ClassVar[str]
    note: ClassVar[str]
    sample_rate: int = SAMPLE_RATE

    def __init__(self, path: str | None = None, batch_size: int = 16, device: str = "cpu") -> None:
        self.path = path
        self.batch_size = check_batch_size(batch_size)
        self.device = device

    def describe(self) -> ModelCard:
        """Says what it is and where its file is looked for; loads nothing."""
        status = find_weights(self.part, self.path, "", (self.file,))
        return ModelCard(self.part, self.model, self.licence, status, self.note)

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._network

    @cached_property
    def identity(self) -> str:
        """Model, weights and preparation."""
        return identify(self.model, self._weights.sha256() or "", self._preparation)

    @property
    def _preparation(self) -> str:
        """How sounds become the network's input: what of a length or a level it changes, with a version."""
        raise NotImplementedError

    def _load(self, file: Path) -> nn.Module:
        """Makes the network with its weights, on the CPU."""
        raise NotImplementedError

    @cached_property
    def _weights(self) -> WeightsStatus:
        return obtain_weights(self.part, self.path, "", (self.file,))

    @cached_property
    def _network(self) -> Any:
        file = self._weights.location
        return load_once((self.model, str(file), self.device), lambda: self._load(file).to(usable_device(self.device)))


def as_tensor(waveform: np.ndarray) -> Tensor:
    """Makes a tensor of a mono sound: float32 [samples].

    Raises:
        InputError: it is empty.
    """
    if not len(waveform):
        raise InputError("the sound is empty")
    return torch.from_numpy(np.ascontiguousarray(waveform, np.float32))


def at_length(waveform: Tensor, samples: int) -> Tensor:
    """Cuts a sound after some samples, or lets silence follow it up to there: [samples]."""
    return nn.functional.pad(waveform[:samples], (0, max(0, samples - len(waveform))))


def at_peak(waveform: Tensor, peak: float) -> Tensor:
    """Brings a sound's mean to zero and its highest sample to a peak; silence stays silent."""
    centred = waveform - waveform.mean()
    return centred * (peak / centred.abs().max().clamp(min=1e-8))
