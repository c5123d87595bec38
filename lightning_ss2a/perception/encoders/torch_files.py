"""Reads the weights of networks from files of other projects, and fills networks with them; nothing is unpickled."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.packages import media_package

_scalar = np.float64(0).__reduce__()[0]
_array = np.zeros(0).__reduce__()[0]
_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""Harmless things that training scripts leave beside the weights: an epoch's number, the best metric, an order."""


def read_state(path: Path, key: str = "state_dict") -> dict[str, Tensor]:
    """Reads the tensors of a file, by name, on the CPU.

    Args:
        path: safetensors, a file of ``torch.save``, or TorchScript.
        key: under which the second keeps its weights; if it has none, it holds nothing but them.

    Raises:
        InputError: it is none of them, it is damaged, or it holds what only unpickling would read.
    """
    content = read_content(path)
    content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, no weights by name")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_content(path: Path, what: str = "a file of weights") -> object:
    """Reads all that a file of weights holds, on the CPU; see :func:`read_state`.

    Args:
        path: the file.
        what: it should be, for messages.

    Raises:
        InputError: it is no such file, it is damaged, or it holds what only unpickling would read.
    """
    try:
        return _read(path)
    except Exception as error:  # torch.load, torch.jit.load and safetensors raise whatever the bytes make them do
        raise InputError(f"{path}: not {what}, or a damaged one ({_first_sentence(error)})") from error


def is_torchscript(path: Path) -> bool:
    """Tells whether it is a TorchScript archive: it holds code beside the weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str, computed: Callable[[str], bool]) -> None:
    """Copies weights into a network.

    Args:
        network: changed in place.
        state: weights by name.
        where: the file and what it should hold, for messages.
        computed: tells names that the network computes itself, which a file may lack.

    Raises:
        InputError: a weight is missing, of another shape, or none of the network's; gives the first and their number.
    """
    own = network.state_dict()
    faults = [f"lacks {name}" for name in own if name not in state and not computed(name)]
    faults += [f"has {name} too much" for name in state if name not in own]
    faults += [
        f"has {name} of shape {list(value.shape)}, needs {list(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    if faults:
        more = f", and {len(faults) - 1} more differences" if len(faults) > 1 else ""
        raise InputError(f"{where}: {faults[0]}{more}")
    network.load_state_dict(state, strict=False)


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return media_package("safetensors.torch").load_file(path)
    if is_torchscript(path):
        return torch.jit.load(path, map_location="cpu").state_dict()
    with torch.serialization.safe_globals(_NUMPY):
        # Read as they are used: AudioLDM's file is 2 GB, of which its CLAP is a third.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _first_sentence(error: BaseException) -> str:
    """Gives the start of a message: torch's go on with advice to unpickle."""
    return one_line(error).split(". ")[0]
