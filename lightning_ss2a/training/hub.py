"""A checkpoint as a folder for a model hub, and back: safetensors, JSON and a model card, nothing pickled.

What a run needs to go on (optimisers, its place in an epoch) is left out; a checkpoint made from the folder stands
before its first step.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

import lightning_ss2a.training as stages
from lightning_ss2a.checkpoints import architecture_of, check_format, read_checkpoint, read_json_object
from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.files import make_folder, to_path, whole_folder, write_whole
from lightning_ss2a.options import dotted
from lightning_ss2a.training.base import INSTANTIATOR, MeasuredModule
from lightning_ss2a.training.checkpoint_io import save_untrained

WEIGHTS, STATISTICS, OPTIONS, CARD = "model.safetensors", "training_statistics.safetensors", "config.json", "README.md"
"""Files of the folder; the statistics are those of the baselines, where the checkpoint has them."""

MODULES: dict[str, type[MeasuredModule]] = {
    f"{module.__module__}.{module.__qualname__}": module
    for module in (getattr(stages, name) for name in stages.__all__)
}
"""Classes that a folder may name."""

SUMMARIES = {
    "ManifoldModule": "the manifold of sound sources: projectors of sights and sounds, and a reconstructor of sounds",
    "RemixerModule": "the Sound Source Remixer, with its manifold: a scene's sources to one audio embedding",
    "TemporalAggregationModule": "temporal aggregation: the audio embeddings of a video's frames to one",
    "AudioToVisualModule": "a translator: what a sound looks like, as an embedding",
    "V2AMapperModule": "V2A-Mapper, the paper's rival: a whole picture to one audio embedding",
}


def export_checkpoint(path: str, output: Path, licence: str | None = None) -> dict[str, Tensor]:
    """Writes a checkpoint's weights and options as a folder for a hub.

    Args:
        path: the checkpoint.
        output: the folder; it must not be there.
        licence: of the weights, by the hub's identifier; None: the card says that none is stated.

    Returns:
        The weights.

    Raises:
        InputError: it is no checkpoint of ours, or the folder is there.
    """
    checkpoint = read_checkpoint(path, "checkpoint")
    if output.exists():
        raise InputError(f"{output}: is there already; choose another folder")
    _class_of(checkpoint["hyper_parameters"], f"checkpoint {path}")
    state: dict[str, Tensor] = checkpoint["state_dict"]
    options = {name: checkpoint[name] for name in ("lightning_ss2a", "hyper_parameters")}
    with whole_folder(output) as folder:
        _write_tensors(folder / WEIGHTS, state)
        if "training_statistics" in checkpoint:
            _write_tensors(folder / STATISTICS, checkpoint["training_statistics"])
        write_whole(folder / OPTIONS, json.dumps(options, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        write_whole(folder / CARD, model_card(checkpoint, licence))
    return state


def import_folder(source: str, output: Path) -> Path:
    """Makes a checkpoint of a folder that :func:`export_checkpoint` has written.

    Args:
        source: the folder.
        output: folder of the checkpoint, which is called by its stage, such as ``manifold.ckpt``.

    Returns:
        The checkpoint.

    Raises:
        InputError: the folder is not what it should be, or that of the checkpoint cannot be made.
    """
    folder = to_path(source)
    options = read_json_object(str(folder / OPTIONS), "source")
    check_format(options, f"source {folder / OPTIONS}")
    module_class = _class_of(options["hyper_parameters"], f"source {folder / OPTIONS}")
    checkpoint: dict[str, Any] = {"pytorch-lightning_version": "2.6.0"} | options
    checkpoint["state_dict"] = _read_tensors(folder / WEIGHTS)
    if (folder / STATISTICS).is_file():
        checkpoint["training_statistics"] = _read_tensors(folder / STATISTICS)
    content = io.BytesIO()
    torch.save(checkpoint, content)
    content.seek(0)
    try:
        module = module_class.load_from_checkpoint(content, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and the parser raise what they like for weights or options of something else
        raise InputError(f"source {folder}: {one_line(error)}") from error
    make_folder(output, "the checkpoint")
    return save_untrained(module, output / _file_of(module_class))


def model_card(checkpoint: Mapping[str, Any], licence: str | None) -> str:
    """Writes the README of a folder, with the front matter that the Hugging Face hub reads.

    Args:
        checkpoint: what its file holds.
        licence: of the weights; None: not stated.
    """
    named = checkpoint["hyper_parameters"]["_class_path"]
    stage, file = MODULES[named].__name__, f"checkpoints/{_file_of(MODULES[named])}"
    front: dict[str, Any] = {
        "library_name": "lightning_ss2a",
        "tags": ["audio-generation", "sound-source-aware", "pytorch-lightning", "arxiv:2411.15447"],
    }
    if licence is not None:
        front["license"] = licence
    numbers = sum(tensor.numel() for tensor in checkpoint["state_dict"].values())
    architecture = "\n".join(
        f"| `{name}` | {json.dumps(value)} |" for name, value in dotted(architecture_of(checkpoint))
    )
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {stage}

{numbers:,} numbers of `lightning_ss2a`: {SUMMARIES[stage]}.
The method is SS2A ([*Gotta Hear Them All*](https://arxiv.org/abs/2411.15447)).

| file | holds |
|---|---|
| `{WEIGHTS}` | the weights |
| `{STATISTICS}` | closed-form maps of the training split, for the baselines of a validation; not in every folder |
| `{OPTIONS}` | every option of the model |

## Use

Make a checkpoint of the downloaded folder, then measure it, or train it further:

```
ss2a checkpoint import FOLDER --output checkpoints
lightning test -c CONFIG.yaml --ckpt_path {file} --data.datasets SHARDS
lightning fit -c CONFIG.yaml --ckpt_path {file} --data.datasets SHARDS
```

## Architecture

| option | value |
|---|---|
{architecture}

## Licence

{"Not stated." if licence is None else f"{licence}."} It is that of the weights; the data that they were trained on and
the encoders whose embeddings they read have their own.
"""


def _file_of(module_class: type[MeasuredModule]) -> str:
    """Names a stage's checkpoint, such as ``manifold.ckpt``."""
    return f"{module_class.__module__.rpartition('.')[2]}.ckpt"


def _class_of(options: Mapping[str, Any], where: str) -> type[MeasuredModule]:
    """Finds the class that options name; nothing else is imported for them.

    Raises:
        InputError: it is none of ours, or Lightning would be told to make it by something else.
    """
    named = options["_class_path"]
    if not isinstance(named, str) or named not in MODULES:
        raise InputError(f"{where}: names the class {named!r}, knows {', '.join(MODULES)}")
    if options.get("_instantiator") != INSTANTIATOR:
        raise InputError(f"{where}: _instantiator must be {INSTANTIATOR}, found {options.get('_instantiator')!r}")
    return MODULES[named]


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(whole, metadata={"format": "pt"}))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"source {path}: no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"source {path}: not a safetensors file, or a damaged one ({error})") from error
