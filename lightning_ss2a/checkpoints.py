"""Read a checkpoint file, or say in one line why it cannot be used; tell weights apart."""

import hashlib
import io
import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import torch
from torch import nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import is_local, local_path
from lightning_ss2a.options import dotted

FORMAT = 2
"""Version of what ours hold beside Lightning's: under ``lightning_ss2a``, this number, the architecture and, since a
while, the encoders of the data."""


def check_format(checkpoint: Mapping[str, Any], source: str) -> None:
    """Refuse a checkpoint of another version of this framework, or of something else.

    Args:
        checkpoint: what its file holds.
        source: the file and what named it, for the message.

    Raises:
        InputError: it has another format or none, or lacks what that format has.
    """
    ours = checkpoint.get("lightning_ss2a")
    found = ours.get("format") if isinstance(ours, dict) else None
    if found != FORMAT:
        found = "none of ours" if found is None else found
        raise InputError(f"{source}: its format is {found}, this version reads {FORMAT}; train anew")
    options = checkpoint.get("hyper_parameters")
    named = isinstance(options, dict) and "_class_path" in options
    if not (named and isinstance(ours, dict) and isinstance(ours.get("architecture"), dict)):
        raise InputError(f"{source}: lacks the options or the architecture of its model; something has changed it")


def read_checkpoint(path: str, option: str, source: Path | io.BytesIO | None = None) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU; a local file's tensors are read as they are used. See :func:`read_undamaged`.

    Args:
        path: the file, or a URL that fsspec opens.
        option: what named it, for messages.
        source: what :func:`checkpoint_source` has found there already.

    Raises:
        InputError: there is no such file, it is none of Lightning's, it is damaged, or it has another format.
    """
    checkpoint = _undamaged(
        checkpoint_source(path, option) if source is None else source, f"{option} {path}", mmap=True
    )
    check_format(checkpoint, f"{option} {path}")
    return checkpoint


def read_undamaged(path: str, option: str, mmap: bool = False) -> dict[str, Any]:
    """A checkpoint of Lightning, on the CPU; nothing is unpickled.

    ``torch.load`` does not compare the checksums that ``torch.save`` writes, and would take flipped bits for weights.
    To compare them here reads the file once: 0.5 s for 1 GB in the system's cache, where loading it takes 4 s.

    Args:
        path: the file, or a URL that fsspec opens.
        option: what named it, for messages.
        mmap: read tensors of a local file as they are used; it must stay as it is as long as they are.

    Raises:
        InputError: there is no such file, it is none of Lightning's, or it is damaged.
    """
    return _undamaged(checkpoint_source(path, option), f"{option} {path}", mmap)


def read_torch_file(path: str, option: str, keys: Collection[str] = (), what: str = "a file of torch.save") -> Any:
    """What ``torch.save`` has written to a file of others, on the CPU; nothing is unpickled.

    Args:
        path: the file, or a URL that fsspec opens.
        option: what named it, for messages.
        keys: what it must have.
        what: it is, for messages.

    Raises:
        InputError: there is no such file, it is no such file, or it is damaged.
    """
    return _content(checkpoint_source(path, option), f"{option} {path}", keys, what, mmap=True)


def read_json_object(path: str, option: str) -> dict[str, Any]:
    """What a JSON file beside weights holds.

    Args:
        path: the file, or a URL that fsspec opens.
        option: what named it, for messages.

    Raises:
        InputError: there is no such file, or it is no JSON object.
    """
    source = checkpoint_source(path, option)
    try:
        content = json.loads(source.getvalue() if isinstance(source, io.BytesIO) else source.read_bytes())
    except ValueError as error:
        raise InputError(f"{option} {path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{option} {path}: needs a JSON object, found a {type(content).__name__}")
    return content


def _undamaged(source: Path | io.BytesIO, where: str, mmap: bool) -> dict[str, Any]:
    return _content(source, where, ("state_dict",), "a checkpoint of Lightning", mmap)


def _content(source: Path | io.BytesIO, where: str, keys: Collection[str], what: str, mmap: bool) -> Any:
    try:
        with zipfile.ZipFile(source) as archive:
            damaged = archive.testzip()
        if isinstance(source, io.BytesIO):
            source.seek(0)
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=mmap and isinstance(source, Path))
        for key in keys:
            content[key]
    except Exception as error:  # zipfile and torch.load raise whatever the bytes make them do
        raise InputError(
            f"{where}: not {what}, or a damaged one, or one that holds more than tensors and plain values, which is "
            "never unpickled"
        ) from error
    if damaged is not None:
        raise InputError(f"{where}: damaged, the checksum of {damaged!r} in it does not fit; use another, or a copy")
    return content


def checkpoint_source(path: str, option: str) -> Path | io.BytesIO:
    """The file, or what a URL gives.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        if not is_local(path):
            with fsspec.open(path, "rb") as stream:
                return io.BytesIO(stream.read())
    except Exception as error:  # file systems of fsspec raise what they like
        raise InputError(f"{option} {path}: cannot be read ({str(error) or type(error).__name__})") from error
    file = Path(local_path(path))
    if not file.is_file():
        raise InputError(f"{option} {path}: no such file")
    return file


def architecture_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a checkpoint's weights depend on, nested plain values by name."""
    return checkpoint["lightning_ss2a"]["architecture"]


def encoders_of(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Identities of the encoders whose embeddings a checkpoint was trained on, by field; empty: it does not say."""
    return checkpoint["lightning_ss2a"].get("encoders", {})


ADDED_OPTIONS = {"remixer.residual": "none"}
"""Options of architectures that older checkpoints lack, and what these were."""


def other_architecture(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Options by which the weights of one model make no sense in another.

    Args:
        ours: architecture of the model, nested plain values by name.
        theirs: that of the checkpoint.

    Yields:
        Dotted name, our value and theirs.
    """
    own = dict(dotted(ours))
    for name, value in (ADDED_OPTIONS | dict(dotted(theirs))).items():
        if own.get(name, value) != value:
            yield name, own[name], value


def weights_digest(network: nn.Module) -> str:
    """12 hexadecimal digits that tell a network's weights from others, whatever device they are on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
