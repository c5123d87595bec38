"""Noise that belongs to a row: the same in any batch, on any rank and in every process."""

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ss2a.models.layers.gaussian import DiagonalGaussian


def keyed_generator(seed: int, key: str | bytes | int, device: torch.device) -> torch.Generator:
    """Makes the generator of one row, the same for one seed and key in every process.

    Args:
        seed: changes the noise of all rows.
        key: what the row is called.
        device: of the generator; the CPU's and the GPU's give different numbers.
    """
    name = key if isinstance(key, bytes) else str(key).encode()
    digest = hashlib.blake2b(b"%d:%s" % (seed, name), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def keyed_normal(seed: int, keys: Sequence[str | bytes | int], width: int, device: torch.device) -> Tensor:
    """Draws standard normal numbers of each row, float32 ``[rows, width]``."""
    noise = torch.empty(len(keys), width, device=device)
    for row, key in zip(noise, keys, strict=True):
        row.normal_(generator=keyed_generator(seed, key, device))
    return noise


def keyed_draw(gaussian: DiagonalGaussian, seed: int, keys: Sequence[str | bytes | int]) -> Tensor:
    """Makes one draw of each row's Gaussian, unit vectors ``[rows, width]`` in float32.

    Args:
        gaussian: ``[rows, width]``.
        seed: changes the noise of all rows.
        keys: what each row is called.
    """
    mean, std = gaussian.mean.float(), gaussian.std.float()
    return F.normalize(mean + keyed_normal(seed, keys, mean.shape[-1], mean.device) * std, dim=-1)
