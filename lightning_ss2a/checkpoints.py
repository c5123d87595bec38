"""Read a checkpoint file, or say in one line why it cannot be used; tell weights apart."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_ss2a.errors import InputError

ARCHITECTURE = (
    "aggregator",
    "expansion",
    "flavour",
    "input_scaling",
    "mask_padding",
    "num_heads",
    "num_layers",
    "train_steps",
    "unit_mean",
    "variant",
)
"""Hyperparameters that change what a network computes, besides its widths."""


def read_checkpoint(path: str, option: str) -> dict[str, Any]:
    """A checkpoint of Lightning, on the CPU; its tensors are read from the file as they are used.

    Args:
        path: the file.
        option: what named it, for messages.

    Raises:
        InputError: there is no such file, or it is none of Lightning's.
    """
    if not Path(path).is_file():
        raise InputError(f"{option} {path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint["state_dict"]
    except Exception as error:  # torch.load raises whatever the bytes make it do
        raise InputError(f"{option} {path}: not a checkpoint of Lightning, or a damaged one") from error
    return checkpoint


def weights_digest(network: nn.Module) -> str:
    """12 hexadecimal digits that tell a network's weights from others, whatever device they are on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def other_architecture(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Hyperparameters by which the weights of one model make no sense in another.

    Args:
        ours: hyperparameters of the model.
        theirs: those of the checkpoint.

    Yields:
        Name, our value and theirs.
    """
    for name, value in theirs.items():
        mine = ours.get(name, value)
        if (name.endswith(("width", "widths")) or name in ARCHITECTURE) and _plain(mine) != _plain(value):
            yield name, _plain(mine), _plain(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
