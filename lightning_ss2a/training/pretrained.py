"""Networks that an earlier stage trained, read from its checkpoint and kept as they are."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ss2a.checkpoints import read_checkpoint
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import AudioToVisual, Manifold
from lightning_ss2a.models.ema import Network, frozen_copy

MANIFOLD_OPTIONS = (
    "visual_width",
    "audio_width",
    "manifold_width",
    "projector_widths",
    "reconstructor_widths",
    "input_scaling",
    "variant",
)
"""Hyperparameters of a ``ManifoldModule`` that its manifold is made of; dropout has no part in a frozen one."""

AUDIO_TO_VISUAL_OPTIONS = ("audio_width", "visual_width", "hidden_widths", "input_scaling")
"""The same of an ``AudioToVisualModule``."""


def read_manifold(path: str, option: str, teacher: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Architecture and weights of the manifold in a checkpoint of ``ManifoldModule``.

    Args:
        path: the checkpoint.
        option: what named it, for messages.
        teacher: take the mean teacher's weights instead of the student's.

    Raises:
        InputError: there is no such file, it is no such checkpoint, or has no teacher.
    """
    what = "a manifold (ManifoldModule)"
    architecture, weights = _read(path, option, "manifold.", MANIFOLD_OPTIONS, what)
    if not teacher:
        return architecture, _part(weights, "manifold.")
    state = _part(weights, "teacher.")
    if not state:
        raise InputError(f"{option} {path}: has no teacher; it was trained without EMATeacher, or stopped before")
    return architecture, state


def build_manifold(architecture: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> Manifold:
    """A frozen manifold; without weights until a checkpoint brings them, if none are given."""
    return _build(Manifold, architecture, state)


def load_audio_to_visual(
    path: str, option: str, audio_width: int | None = None, visual_width: int | None = None
) -> AudioToVisual:
    """The frozen translator in a checkpoint of ``AudioToVisualModule``.

    Args:
        path: the checkpoint.
        option: what named it, for messages.
        audio_width: width that it must read; None: any.
        visual_width: width that it must give; None: any.

    Raises:
        InputError: there is no such file, it is no such checkpoint, or its widths are others.
    """
    what = "a translator (AudioToVisualModule)"
    architecture, weights = _read(path, option, "translator.", AUDIO_TO_VISUAL_OPTIONS, what)
    for name, needed in (("audio_width", audio_width), ("visual_width", visual_width)):
        if needed is not None and architecture[name] != needed:
            raise InputError(f"{option} {path}: its {name} is {architecture[name]}, here it must be {needed}")
    return _build(AudioToVisual, architecture, _part(weights, "translator."))


def same_weights(state: Mapping[str, Tensor], prefix: str, network: nn.Module) -> bool:
    """Whether a checkpoint's state holds, under a prefix, the weights of a network, bit for bit."""
    part = _part(state, prefix)
    own = network.state_dict()
    return own.keys() == part.keys() and all(torch.equal(x.cpu(), part[name].cpu()) for name, x in own.items())


def _build(network: type[Network], architecture: Mapping[str, Any], state: Mapping[str, Tensor] | None) -> Network:
    built = network(**architecture, dropout=0.0)
    if state is not None:
        built.load_state_dict(state)
    return frozen_copy(built)


def _read(
    path: str, option: str, prefix: str, options: tuple[str, ...], what: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Hyperparameters that a network is made of, and all weights of a checkpoint that has some under the prefix."""
    checkpoint = read_checkpoint(path, option)
    hyperparameters, weights = checkpoint.get("hyper_parameters", {}), checkpoint["state_dict"]
    missing = [name for name in options if name not in hyperparameters]
    if missing or not any(name.startswith(prefix) for name in weights):
        raise InputError(f"{option} {path}: is no checkpoint of {what}")
    return {name: _plain(hyperparameters[name]) for name in options}, weights


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
