"""Encodes sounds with the 16 kHz Cnn14 of PANNs (Kong et al. 2020, 2048-d and AudioSet's 527 classes)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.audioset import CLASSES, read_classes
from lightning_ss2a.evaluation.encoders.checkpoint import CheckpointEncoder, as_tensor, at_length
from lightning_ss2a.files import to_path
from lightning_ss2a.perception.encoders.running import batches_alike
from lightning_ss2a.perception.encoders.torch_files import fill, read_state

WINDOW, HOP, MEL_BANDS = 512, 160, 64
"""Samples; the 32 kHz network has 1024 and 320."""
LEAST_POWER = 1e-10
SHORTEST = HOP * 32
"""Samples: with fewer frames nothing is left after five halvings."""
CHANNELS = (64, 128, 256, 512, 1024, 2048)
WIDTH = CHANNELS[-1]


class _Block(nn.Module):
    """Two convolutions of 3 x 3, each normalised and rectified."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))


class _MelMatrix(nn.Module):
    """Each frequency's weight in each band, [257, 64], which the file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.melW = nn.Parameter(torch.zeros(WINDOW // 2 + 1, MEL_BANDS))


class Cnn14Network(nn.Module):
    """Cnn14 for evaluation: without dropout and augmentation, its names those of PANNs' file."""

    def __init__(self) -> None:
        super().__init__()
        self.logmel_extractor = _MelMatrix()
        self.bn0 = nn.BatchNorm2d(MEL_BANDS)
        for number, (inputs, outputs) in enumerate(zip((1, *CHANNELS), CHANNELS, strict=False), 1):
            self.add_module(f"conv_block{number}", _Block(inputs, outputs))
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.fc_audioset = nn.Linear(WIDTH, CLASSES)

    def forward(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Gives embeddings and logits: [sounds, samples] to [sounds, 2048] and [sounds, 527]."""
        x = self.bn0(self._log_mel(waveforms).transpose(1, 3)).transpose(1, 3)  # normalised by band
        for number in range(1, len(CHANNELS) + 1):
            x = self.get_submodule(f"conv_block{number}")(x)
            x = avg_pool2d(x, 2) if number < len(CHANNELS) else x
        x = x.mean(dim=3)  # over bands: [sounds, 2048, frames]
        embeddings = relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return embeddings, self.fc_audioset(embeddings)

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        """Computes spectrograms in dB, [sounds, 1, frames, 64]."""
        window = torch.hann_window(WINDOW, device=waveforms.device)
        spectrum = torch.stft(waveforms, WINDOW, HOP, window=window, pad_mode="reflect", return_complex=True)
        power = spectrum.abs().square().transpose(1, 2) @ self.logmel_extractor.melW
        return 10 * power.clamp(min=LEAST_POWER).log10()[:, None]


class PANNs(CheckpointEncoder):
    """Encodes and names a whole sound, of whatever length; one shorter than 0.32 s is followed by silence.

    Args:
        path: ``Cnn14_16k_mAP=0.438.pth``, or its folder.
        labels: AudioSet's ``class_labels_indices.csv``; the file of weights has no names. None: AudioSet's numbers.
        batch_size: sounds of one length at once.
        device: where it runs.

    Raises:
        InputError: the batch size is below 1; once used, too: a file is missing or not what it should be.
    """

    part = "PANNs"
    model = "panns/Cnn14_16k"
    file = "Cnn14_16k_mAP=0.438.pth"
    licence = "MIT (panns_inference); of the weights, see where they are published"
    note = "tags a whole clip with AudioSet's 527 classes, at 16 kHz"
    width: int = WIDTH

    def __init__(
        self, path: str | None = None, labels: str | None = None, batch_size: int = 16, device: str = "cpu"
    ) -> None:
        super().__init__(path, batch_size, device)
        self._labels = labels

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        if self._labels is None:
            return tuple(map(str, range(CLASSES)))
        names = tuple(read_classes(to_path(self._labels)).values())
        if len(names) != CLASSES:
            raise InputError(f"{self._labels}: names {len(names)} classes, {self.part} needs AudioSet's {CLASSES}")
        return names

    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds at 16 kHz: float32 [sounds, 2048], none negative."""
        return self.embed_and_label(waveforms)[0]

    @torch.inference_mode()
    def embed_and_label(self, waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Embeds mono sounds at 16 kHz, and gives the logits of the classes, before the sigmoid: [sounds, 527]."""
        sounds = [as_tensor(waveform) for waveform in waveforms]
        sounds = [at_length(sound, max(SHORTEST, len(sound))) for sound in sounds]
        embeddings, logits = torch.empty(len(sounds), WIDTH), torch.empty(len(sounds), CLASSES)
        for numbers in batches_alike([len(sound) for sound in sounds], self.batch_size):
            found = self._network(torch.stack([sounds[number] for number in numbers]).to(self.device))
            embeddings[list(numbers)], logits[list(numbers)] = (each.float().cpu() for each in found)
        return embeddings, logits

    @property
    def _preparation(self) -> str:
        return f"window{WINDOW}-hop{HOP}-least{SHORTEST}-v1"

    def _load(self, file: Path) -> nn.Module:
        network = Cnn14Network()
        fill(network, _without_fourier(read_state(file, "model")), f"{self.part}: {file}: not a Cnn14_16k", _is_counter)
        return network


def _without_fourier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leaves out the windowed Fourier transform, which the file keeps as the weights of convolutions."""
    return {name: value for name, value in state.items() if not name.startswith("spectrogram_extractor.")}


def _is_counter(name: str) -> bool:
    """Tells the numbers of batches that a normalisation was trained on, which is not used."""
    return name.endswith(".num_batches_tracked")
