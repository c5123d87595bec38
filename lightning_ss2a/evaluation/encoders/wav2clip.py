"""Encodes sounds with Wav2CLIP (Wu et al. 2022, 512-d) into the space of CLIP ViT-B/32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.checkpoint import SAMPLE_RATE, CheckpointEncoder, as_tensor, at_length
from lightning_ss2a.perception.encoders.clip import CLIPImageEncoder
from lightning_ss2a.perception.encoders.running import Precision, batches
from lightning_ss2a.perception.encoders.torch_files import fill, read_state
from lightning_ss2a.perception.identity import exactly
from lightning_ss2a.perception.packages import media_package

WINDOW, HOP = 512, 353
"""Samples."""
LEAST_POWER, LEAST_DEVIATION = 1e-7, 1e-9
"""Added to a spectrogram before its logarithm, and to its standard deviation."""
SHORTEST = 0.05
"""Seconds."""
WIDTH = 512
CLIP_ARCHITECTURE, CLIP_REPOSITORY = "ViT-B-32-quickgelu", "timm/vit_base_patch32_clip_224.openai"


class Wav2CLIPNetwork(nn.Module):
    """A ResNet-18 over a spectrogram, and two layers; its names are those of ``Wav2CLIP.pt`` after a prefix."""

    def __init__(self) -> None:
        super().__init__()
        resnet: Any = media_package("torchvision.models", extra="evaluation").resnet18()
        resnet.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        resnet.fc = nn.Identity()
        self.audio_encoder = resnet
        self.audio_transform = nn.Module()
        # The third stands where training drops out.
        self.audio_transform.sequential = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Identity(), nn.Linear(WIDTH, WIDTH)
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        """Embeds sounds: [sounds, samples] to [sounds, 512]."""
        features = self.audio_encoder(standardised_spectrogram(waveforms)[:, None])
        embeddings: Tensor = self.audio_transform.get_submodule("sequential")(features)
        return embeddings


def standardised_spectrogram(waveforms: Tensor) -> Tensor:
    """Computes log-power spectrograms, each of mean 0 and standard deviation 1: [sounds, samples] to [.., 257, frames].

    The authors' code standardises all of a batch at once, so that it is the same for one sound at a time only.
    """
    window = torch.hann_window(WINDOW, device=waveforms.device)
    spectrum = torch.stft(waveforms, WINDOW, HOP, window=window, pad_mode="reflect", return_complex=True)
    logarithm = (spectrum.abs().square() + LEAST_POWER).log()
    deviation, mean = torch.std_mean(logarithm, dim=(1, 2), keepdim=True)
    return (logarithm - mean) / (deviation + LEAST_DEVIATION)


class Wav2CLIP(CheckpointEncoder):
    """Encodes sounds near pictures of what sounds, in CLIP's space; not unit vectors.

    A sound is cut after ``seconds``, or silence follows up to there, as in the paper's published run; its cosine to
    :class:`Wav2CLIPImages` is the CLIP score.

    Args:
        path: ``Wav2CLIP.pt``, or its folder.
        seconds: of sound that it hears.
        batch_size: sounds at once; each is heard as if it were alone.
        device: where it runs.

    Raises:
        InputError: an option is out of range; once used, too: a package or the file is missing or not what it should
            be.
    """

    part = "Wav2CLIP"
    model = "wav2clip"
    file = "Wav2CLIP.pt"
    licence = "MIT"
    note = "of the CLIP score, with pictures by CLIP ViT-B/32; learnt from VGGSound, at 16 kHz"
    width: int = WIDTH

    def __init__(
        self, path: str | None = None, seconds: float = 10.24, batch_size: int = 16, device: str = "cpu"
    ) -> None:
        super().__init__(path, batch_size, device)
        if not seconds >= SHORTEST:
            raise InputError(f"Wav2CLIP: seconds is {seconds}, needs at least {SHORTEST}")
        self.seconds = seconds

    @torch.inference_mode()
    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds at 16 kHz: float32 [sounds, 512]."""
        samples = round(self.seconds * SAMPLE_RATE)
        sounds = [at_length(as_tensor(waveform), samples) for waveform in waveforms]
        found = [
            self._network(torch.stack([*batch]).to(self.device)).cpu() for batch in batches(sounds, self.batch_size)
        ]
        return torch.cat(found) if found else torch.empty(0, WIDTH)

    @property
    def _preparation(self) -> str:
        return f"{exactly(self.seconds)}s-v1"

    def _load(self, file: Path) -> nn.Module:
        network = Wav2CLIPNetwork()
        state = {
            name: value
            for name, value in read_state(file).items()
            # The picture's half, and a window that is computed, are in the file, too.
            if name.startswith(("audio_encoder.", "audio_transform.")) and ".spectrogram." not in name
        }
        fill(network, state, f"{self.part}: {file}: not a Wav2CLIP", lambda name: name.endswith("num_batches_tracked"))
        return network


class Wav2CLIPImages(CLIPImageEncoder):
    """Encodes the pictures of the CLIP score, with the CLIP that Wav2CLIP learnt from: OpenAI's ViT-B/32.

    Args:
        path: see :class:`~lightning_ss2a.perception.encoders.clip.CLIPImageEncoder`, as the others.
        repository: on the hub.
        architecture: open_clip's name.
        batch_size: pictures at once.
        device: where it runs.
        precision: of matrix products.

    Raises:
        InputError: as there.
    """

    def __init__(
        self,
        path: str | None = None,
        repository: str = CLIP_REPOSITORY,
        architecture: str = CLIP_ARCHITECTURE,
        batch_size: int = 64,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(path, repository, architecture, batch_size, device, precision)
