"""``generate_frames``: videos of visual frames to videos of generated audio embeddings, for temporal aggregation."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.checkpoints import read_checkpoint, weights_digest
from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.format.reader import ShardReader
from lightning_ss2a.data.format.schema import FRAMES_PER_VIDEO, FieldSpec
from lightning_ss2a.data.format.writer import ShardWriter, check_not_source, check_output
from lightning_ss2a.data.loading.dataset import ShardDataset
from lightning_ss2a.data.loading.tensors import Batch
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import mean_over_frames
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.training import RemixerModule

Sampling = Literal["mean", "draw", "cycle_mix"]
COPIED = ("audio", "class_index", "pair_origin", "group", "timestamps")


@torch.no_grad()
def generate_frames(
    source: str,
    output: str,
    checkpoint: str,
    *,
    sampling: Sampling = "mean",
    seed: int = 0,
    videos_at_once: int = 16,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> Manifest:
    """Generate an audio embedding for every frame of a data set of videos.

    Each frame is a scene of one source, the frame itself, which is the scene's global embedding too. Splits, folds,
    keys, names, classes, audio and timestamps are the source's; the mean direction of a video's visual frames is kept
    as the field ``visual``, for the CLIP score.

    Args:
        source: data set of kind videos whose frames are visual embeddings.
        output: folder of the data set, of kind videos, whose frames are audio embeddings.
        checkpoint: checkpoint of a ``RemixerModule``, which holds its manifold too.
        sampling: the mean of the Remixer's Gaussian, one draw, or Cycle Mix as the checkpoint sets it.
        seed: of draws.
        videos_at_once: videos in a batch, of 64 frames each.
        device: such as cpu or cuda; auto: a GPU if there is one.
        overwrite: replace a data set in the output folder; other files there stay.
        progress: show a progress bar, on a terminal.

    Returns:
        The manifest.

    Raises:
        InputError: the checkpoint or the data set is not what it should be.
    """
    OptionCheck().one_of(get_args(Sampling), sampling=sampling)
    OptionCheck().at_least(1, videos_at_once=videos_at_once)
    check_not_source(output, [source])
    check_output(output, overwrite)
    manifest = Manifest.load(source)
    module = _load_remixer(checkpoint, _device(device))
    _check_source(source, manifest, module)
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not (progress and console.is_interactive))
    with (
        ShardWriter(
            output,
            "videos",
            _fields(manifest, module, checkpoint, sampling),
            manifest.classes,
            provenance=manifest.provenance,
            licence=manifest.licence,
            label_head=manifest.load_label_head(source) if manifest.label_head is not None else None,
            folds=manifest.folds,
            overwrite=True,
        ) as writer,
        bar,
    ):
        task = bar.add_task("videos", total=manifest.rows())
        for split in manifest.splits:
            names = ShardReader(source, manifest).read_split(split, ["name"])["name"]  # no batch has them
            for batch in ShardDataset(source, split, videos_at_once):
                columns = _columns(batch, _generate(module, batch, sampling, seed))
                writer.write(split, columns | {"name": names[batch["index"].numpy()]})
                bar.advance(task, len(batch["index"]))
    return Manifest.load(output)


def _load_remixer(checkpoint: str, device: torch.device) -> RemixerModule:
    state = read_checkpoint(checkpoint, "checkpoint")
    if not any(name.startswith("remixer.") for name in state["state_dict"]):
        raise InputError(f"checkpoint {checkpoint}: is no checkpoint of a RemixerModule")
    return RemixerModule.load_from_checkpoint(checkpoint, map_location=device, weights_only=True).eval()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r}: {str(error).splitlines()[0]}") from error


def _check_source(source: str, manifest: Manifest, module: RemixerModule) -> None:
    if manifest.kind != "videos":
        raise InputError(f"{source}: a data set of kind {manifest.kind}; frames are generated for videos")
    frames = manifest.fields["frames"]
    if frames.role == "audio":
        raise InputError(f"{source}: its frames are audio embeddings already ({frames.encoder})")
    for field, width in (("frames", module.visual_width), ("audio", module.audio_width)):
        if manifest.fields[field].width != width:
            raise InputError(
                f"{source}: field {field!r} has width {manifest.fields[field].width}, the checkpoint's is {width}"
            )


def _fields(manifest: Manifest, module: RemixerModule, checkpoint: str, sampling: str) -> dict[str, FieldSpec]:
    encoder = f"ss2a-{sampling}:{Path(checkpoint).name}:{weights_digest(module)}"
    visual, audio = manifest.fields["frames"], manifest.fields["audio"]
    return {
        "frames": FieldSpec(audio.width, encoder, role="audio"),
        "audio": replace(audio, views=None),  # read as the mean of its views
        "visual": FieldSpec(visual.width, f"mean of {FRAMES_PER_VIDEO} frames: {visual.encoder}"),
    }


def _generate(module: RemixerModule, batch: Batch, sampling: str, seed: int) -> Tensor:
    """Unit audio embeddings of the frames, [videos, frames, A]."""
    frames = batch["frames"].to(module.device)
    every = frames.flatten(0, 1)  # each frame a scene of one source
    there = torch.ones(len(every), 1, dtype=torch.bool, device=every.device)
    scenes: Batch = {"sources": every.unsqueeze(1), "valid": there, "global_visual": every}
    slots = module.slots(scenes)
    scenes["key"] = list(_frame_keys(batch["key"], frames.shape[1]))
    if sampling == "mean":
        audio = normalize(module.mix(slots).mean, dim=-1)
    elif sampling == "draw":
        audio = module.draw(scenes, slots, seed)
    else:
        audio = module.mix_in_cycles(scenes, slots, seed).embedding
    return audio.unflatten(0, frames.shape[:2])


def _frame_keys(keys: list[str], frames: int) -> Iterator[str]:
    for key in keys:
        yield from (f"{key}#{frame}" for frame in range(frames))


def _columns(batch: Batch, frames: Tensor) -> dict[str, Any]:
    return {
        "frames": frames.cpu().numpy(),
        "visual": mean_over_frames(batch["frames"]).numpy(),
        **{name: batch[name].numpy() for name in COPIED},
        "key": np.array([key.encode() for key in batch["key"]]),
    }
