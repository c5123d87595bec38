"""Finds and loads the checkpoints that generation needs, and checks that they go with the models beside them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_ss2a.checkpoints import encoders_of, read_checkpoint
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import is_local, to_path
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.training import (
    AudioToVisualModule,
    ManifoldModule,
    RemixerModule,
    TemporalAggregationModule,
    V2AMapperModule,
)
from lightning_ss2a.training.base import MeasuredModule

RUNS = Path("runs")
STAGES: dict[str, tuple[type[MeasuredModule], str, str]] = {
    "manifold": (ManifoldModule, "manifold", "manifold"),
    "remixer": (RemixerModule, "remixer", "remixer"),
    "aggregator": (TemporalAggregationModule, "temporal_aggregation", "aggregator"),
    "translator": (AudioToVisualModule, "audio_to_visual", "translator"),
    "mapper": (V2AMapperModule, "v2a_mapper", "mapper"),
}
"""Of each option: the module of its checkpoint, the folder of its runs, and the network whose weights it has."""

_VERSION = re.compile(r"version_(\d+)")
_SEEN = ("visual", "sources", "global_visual")
"""Fields of what an image encoder has made."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A module out of a checkpoint.

    Attributes:
        option: that named it.
        path: of the checkpoint.
        sha256: of the file.
        module: in evaluation mode.
        encoders: identities of those whose embeddings it was trained on, by field; empty: it does not say.
    """

    option: str
    path: str
    sha256: str
    module: Any
    encoders: Mapping[str, str]


def newest_checkpoint(option: str) -> str | None:
    """Finds the best checkpoint of the newest run of a stage below ``runs/`` that has one; None: there is none."""
    found = [
        (int(version[1]), path)
        for path in (RUNS / STAGES[option][1]).glob("version_*/checkpoints/best.ckpt")
        if (version := _VERSION.fullmatch(path.parts[-3]))
    ]
    return str(max(found)[1]) if found else None


def load_trained(option: str, path: str | None) -> Trained:
    """Loads what an option names; without a path the newest that was trained here.

    Raises:
        InputError: there is none, or it is of another stage.
    """
    kind, folder, network = STAGES[option]
    path = path or newest_checkpoint(option)
    if path is None:
        raise InputError(
            f"{option} is missing: no run below {RUNS / folder} has a checkpoint; name one with --{option}, or train "
            f"one: lightning fit -c configs/{folder}.yaml"
        )
    if not is_local(path):
        raise InputError(f"{option} {path}: a URL, and here only a path of this machine will do")
    checkpoint = read_checkpoint(path, option)
    if not any(name.startswith(f"{network}.") for name in checkpoint["state_dict"]) or (
        option == "manifold" and any(name.startswith("remixer.") for name in checkpoint["state_dict"])
    ):
        raise InputError(f"{option} {path}: is no checkpoint of a {kind.__name__}")
    module = kind.load_from_checkpoint(path, map_location=torch.device("cpu"), weights_only=True).eval()
    return Trained(option, path, sha256_of(to_path(path)), module, encoders_of(checkpoint))


def check_encoders(trained: Trained, seen: str | None, heard: str) -> None:
    """Checks that a module was trained on embeddings of these encoders, as far as its checkpoint says.

    Args:
        trained: the module.
        seen: identity of the image encoder; None: it is given nothing that is seen.
        heard: identity of the encoder whose embeddings the generator understands.

    Raises:
        InputError: it was trained on others.
    """
    wanted = {"audio": heard}
    if seen is not None and trained.module.visual_width is not None:  # an aggregator reads nothing that is seen
        wanted |= dict.fromkeys(_SEEN, seen)
    for field, encoder in trained.encoders.items():
        if field in wanted and encoder != wanted[field]:
            whose = "the generator sounds those" if field == "audio" else "the image encoder gives those"
            raise InputError(
                f"{trained.option} {trained.path}: was trained on {field} embeddings of {encoder}, and {whose} of "
                f"{wanted[field]}"
            )


def check_widths(trained: Trained, visual: int | None, audio: int) -> None:
    """Checks the widths of a module's embeddings.

    Raises:
        InputError: they are others than those of the encoder and the generator.
    """
    for name, width, others in (("visual_width", visual, "the image encoder"), ("audio_width", audio, "the generator")):
        own = getattr(trained.module, name)
        if own is not None and width is not None and own != width:
            raise InputError(f"{trained.option} {trained.path}: its {name} is {own}, that of {others} {width}")
