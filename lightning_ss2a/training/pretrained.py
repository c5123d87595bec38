"""Networks that an earlier stage trained, read from its checkpoint and kept as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ss2a.checkpoints import architecture_of, read_checkpoint
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import AudioToVisual, AudioToVisualOptions, Manifold, ManifoldOptions
from lightning_ss2a.models.ema import frozen_copy


@dataclass(frozen=True)
class StoredManifold:
    """The manifold in a checkpoint of ``ManifoldModule``.

    Attributes:
        visual_width: width of the visual embeddings.
        audio_width: width of the audio embeddings.
        options: its architecture, without what has no part in trained weights.
        weights: its state.
    """

    visual_width: int
    audio_width: int
    options: ManifoldOptions
    weights: Mapping[str, Tensor]


def read_manifold(path: str, option: str, teacher: bool = False) -> StoredManifold:
    """Reads the manifold in a checkpoint of ``ManifoldModule``.

    Args:
        path: the checkpoint.
        option: what named it, for messages.
        teacher: take the mean teacher's weights instead of the student's.

    Raises:
        InputError: there is no such file, it is no such checkpoint, or has no teacher.
    """
    architecture, state = _read(path, option, "manifold", "a manifold (ManifoldModule)")
    weights = _part(state, "teacher." if teacher else "manifold.")
    if not weights:
        raise InputError(f"{option} {path}: has no teacher; it was trained without EMATeacher, or stopped before")
    options = ManifoldOptions(**architecture["manifold"])
    return StoredManifold(architecture["visual_width"], architecture["audio_width"], options, weights)


def build_manifold(
    visual_width: int, audio_width: int, options: ManifoldOptions, weights: Mapping[str, Tensor] | None = None
) -> Manifold:
    """Builds a frozen manifold; without weights until a checkpoint brings them, if none are given."""
    manifold = Manifold(visual_width, audio_width, options)
    if weights is not None:
        manifold.load_state_dict(weights)
    return frozen_copy(manifold)


def load_audio_to_visual(
    path: str, option: str, audio_width: int | None = None, visual_width: int | None = None
) -> AudioToVisual:
    """Loads the frozen translator in a checkpoint of ``AudioToVisualModule``.

    Args:
        path: the checkpoint.
        option: what named it, for messages.
        audio_width: width that it must read; None: any.
        visual_width: width that it must give; None: any.

    Raises:
        InputError: there is no such file, it is no such checkpoint, or its widths are others.
    """
    architecture, state = _read(path, option, "translator", "a translator (AudioToVisualModule)")
    widths = {"audio_width": architecture["audio_width"], "visual_width": architecture["visual_width"]}
    for name, needed in (("audio_width", audio_width), ("visual_width", visual_width)):
        if needed is not None and widths[name] != needed:
            raise InputError(f"{option} {path}: its {name} is {widths[name]}, here it must be {needed}")
    translator = AudioToVisual(**widths, options=AudioToVisualOptions(**architecture["translator"]))
    translator.load_state_dict(_part(state, "translator."))
    return frozen_copy(translator)


def same_weights(state: Mapping[str, Tensor], prefix: str, network: nn.Module) -> bool:
    """Tells whether a checkpoint's state holds, under a prefix, the weights of a network, bit for bit."""
    part = _part(state, prefix)
    own = network.state_dict()
    return own.keys() == part.keys() and all(torch.equal(x.cpu(), part[name].cpu()) for name, x in own.items())


def _read(path: str, option: str, network: str, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads architecture and state in a checkpoint of a module that trains a network of this name."""
    checkpoint = read_checkpoint(path, option)
    architecture = architecture_of(checkpoint)
    if network not in architecture:
        raise InputError(f"{option} {path}: is no checkpoint of {what}")
    return architecture, checkpoint["state_dict"]


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
