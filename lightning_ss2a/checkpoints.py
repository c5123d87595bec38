"""Read a checkpoint file, or say in one line why it cannot be used; tell weights apart."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.options import dotted

FORMAT = 1
"""Version of what ours hold beside Lightning's: under ``lightning_ss2a``, this number and the architecture."""


def check_format(checkpoint: Mapping[str, Any], source: str) -> None:
    """Refuse a checkpoint of another version of this framework, or of something else.

    Args:
        checkpoint: what its file holds.
        source: the file and what named it, for the message.

    Raises:
        InputError: it has another format or none.
    """
    found = checkpoint.get("lightning_ss2a", {}).get("format")
    if found != FORMAT:
        found = "none of ours" if found is None else found
        raise InputError(f"{source}: its format is {found}, this version reads {FORMAT}; train anew")


def read_checkpoint(path: str, option: str) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU; its tensors are read from the file as they are used.

    Args:
        path: the file.
        option: what named it, for messages.

    Raises:
        InputError: there is no such file, it is none of Lightning's, or it has another format.
    """
    if not Path(path).is_file():
        raise InputError(f"{option} {path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint["state_dict"]
    except Exception as error:  # torch.load raises whatever the bytes make it do
        raise InputError(f"{option} {path}: not a checkpoint of Lightning, or a damaged one") from error
    check_format(checkpoint, f"{option} {path}")
    return checkpoint


def architecture_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a checkpoint's weights depend on, nested plain values by name."""
    return checkpoint["lightning_ss2a"]["architecture"]


def other_architecture(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Options by which the weights of one model make no sense in another.

    Args:
        ours: architecture of the model, nested plain values by name.
        theirs: that of the checkpoint.

    Yields:
        Dotted name, our value and theirs.
    """
    own = dict(dotted(ours))
    for name, value in dotted(theirs):
        if own.get(name, value) != value:
            yield name, own[name], value


def weights_digest(network: nn.Module) -> str:
    """12 hexadecimal digits that tell a network's weights from others, whatever device they are on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
