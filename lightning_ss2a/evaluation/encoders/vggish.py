"""Encodes sounds with VGGish (Hershey et al. 2017, 128-d) as the Fréchet audio distance of most papers does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ss2a.evaluation.encoders.checkpoint import CheckpointEncoder, as_tensor
from lightning_ss2a.perception.encoders.log_mel import PATCH_FRAMES, log_mel_patches
from lightning_ss2a.perception.encoders.torch_files import fill, read_state

LOG_OFFSET = 0.01
"""YAMNet's, of the same front end, is 0.001."""
CHANNELS = (64, 128, (256, 256), (512, 512))
"""Of the convolutions before each halving of time and frequency."""
POOLED = 512 * 6 * 4
"""Numbers left of a patch of 96 x 64 after four halvings."""
HIDDEN, WIDTH = 4096, 128


class VGGishNetwork(nn.Module):
    """VGGish without its last activation and without the PCA: log-mel patches to embeddings.

    Its names are those of torchvggish's file: ``features.*`` and ``embeddings.{0,2,4}``.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for block in CHANNELS:
            for outputs in (block,) if isinstance(block, int) else block:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(POOLED, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH)
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Embeds patches: [patches, 96, 64] to [patches, 128]."""
        features = self.features(patches[:, None])  # [patches, 512, 6, 4]
        embeddings: Tensor = self.embeddings(features.permute(0, 2, 3, 1).flatten(1))  # channels last, as in TensorFlow
        return embeddings


class VGGish(CheckpointEncoder):
    """Encodes a sound in patches of 0.96 s, without overlap, with neither PCA nor the last activation.

    That is what the package frechet-audio-distance computes by default. It counts every patch as a row of its own:
    :meth:`embed_frames`. A sound shorter than 0.975 s is followed by silence; less than a patch at the end is unheard.

    Args:
        path: ``vggish-10086976.pth`` of torchvggish, or its folder.
        batch_size: patches at once.
        device: where it runs.

    Raises:
        InputError: the batch size is below 1; once used, too: the file is missing or not what it should be.
    """

    part = "VGGish"
    model = "vggish"
    file = "vggish-10086976.pth"
    licence = "Apache-2.0 (torchvggish)"
    note = "of FAD: 128 numbers for each 0.96 s at 16 kHz, learnt from video tags; deaf to what comes before or after"
    width: int = WIDTH

    def embed(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds mono sounds at 16 kHz as the mean over their patches: float32 [sounds, 128]."""
        found = [frames.mean(dim=0) for frames in self.embed_frames(waveforms)]
        return torch.stack(found) if found else torch.empty(0, WIDTH)

    @torch.inference_mode()
    def embed_frames(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Embeds each patch of mono sounds at 16 kHz: float32 [patches, 128] a sound, at least one patch each."""
        patches = [log_mel_patches(as_tensor(waveform), PATCH_FRAMES, LOG_OFFSET) for waveform in waveforms]
        if not patches:
            return []
        found = [self._network(batch.to(self.device)).cpu() for batch in torch.cat(patches).split(self.batch_size)]
        return list(torch.cat(found).split([len(each) for each in patches]))

    @property
    def _preparation(self) -> str:
        return "no-pca-no-activation-v1"

    def _load(self, file: Path) -> nn.Module:
        network = VGGishNetwork()
        fill(network, read_state(file), f"{self.part}: {file}: not a VGGish", computed=lambda name: False)
        return network
