"""Sounds of several kinds and lengths, and what every encoder of waveforms must do with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.encoders.checkpoint import CheckpointEncoder
from lightning_ss2a.evaluation.protocols import WaveformEncoder
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.perception.weights import Described, Loadable

RATE = 16_000


def noise(seconds: float, seed: int = 0, peak: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-peak, peak, round(seconds * RATE)).astype(np.float32)


def chirp(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)


SOUNDS = [noise(1.3), chirp(2.2), noise(0.4, seed=1), chirp(2.2)[::-1].copy(), np.zeros(RATE, np.float32)]


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Gives a network random weights under which sounds stay as far apart as they are, statistics of norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("num_batches_tracked") or not value.is_floating_point():
                continue
            if value.ndim > 1:
                value.normal_(std=(2 / value[0].numel()) ** 0.5, generator=generator)
            else:  # biases around 0; scales and variances around 1
                value.uniform_(-0.1, 0.1, generator=generator)
                value += 0.0 if name.endswith(("bias", "mean")) else 1.0
    return network.eval()


def assert_an_encoder_of_waveforms(encoder: CheckpointEncoder, file: Path) -> None:
    """Checks the protocol, that a batch is its items, and that the identity and the card tell of the file."""
    assert isinstance(encoder, WaveformEncoder)
    assert isinstance(encoder, Described)
    assert isinstance(encoder, Loadable)
    together = encoder.embed(SOUNDS)
    assert together.shape == (len(SOUNDS), encoder.width)
    assert together.dtype == torch.float32
    assert together.isfinite().all()
    alone = torch.cat([encoder.embed([sound]) for sound in SOUNDS])
    scale = together.abs().max()
    torch.testing.assert_close(together / scale, alone / scale, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3 * scale  # it hears
    assert encoder.embed([]).shape == (0, encoder.width)
    assert f"@{sha256_of(file)[:12]}+" in encoder.identity
    assert encoder.describe().weights.found == (file,)


def assert_says_what_is_missing(kind: type[CheckpointEncoder], folder: Path) -> None:
    """Checks the one line about a file that is nowhere, not there, or not what it should be."""
    assert kind().describe().problem == (
        f"{kind.part}: {kind.file} is not on the hub; {kind.part}.path must say where it is"
    )
    with pytest.raises(InputError, match=f"^{kind.part}: .* does not exist; {kind.part}.path must name the file or"):
        kind(str(folder / "nowhere")).load()
    torch.save({"weight": torch.zeros(3)}, folder / "other.pth")
    with pytest.raises(InputError, match=rf"^{kind.part}: .*other\.pth: not a") as error:
        kind(str(folder / "other.pth")).load()
    assert "\n" not in str(error.value)
    (folder / "damaged.pth").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="damaged"):
        kind(str(folder / "damaged.pth")).load()
    with pytest.raises(InputError, match="batch_size is 0"):
        kind(batch_size=0)
