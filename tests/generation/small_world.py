"""Media and checkpoints for tests of generation, made in well under a second each."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from lightning.pytorch import LightningModule
from PIL import Image

from lightning_ss2a.generation.generate import Perception
from lightning_ss2a.perception.media.video import PyAVReader
from tests.generation.small_stack import picture, small_stack, tone
from tests.generation.tone_generator import ToneGenerator
from tests.manifold_examples import AUDIO_WIDTH, make_trainer
from tests.scene_examples import make_aggregation, make_mapper, make_remixer, make_translator, save_manifold

ENCODERS = {"visual": "eye", "global_visual": "eye", "sources": "eye", "audio": "ear"}


def save_module(module: LightningModule, path: Path, encoders: dict[str, str] | None = None) -> str:
    """A checkpoint as the trainer saves it, with the encoders of its data."""
    trainer = make_trainer(path.parent)
    trainer.strategy.connect(module)
    trainer.strategy._lightning_module = module
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lightning_ss2a"]["encoders"] = ENCODERS if encoders is None else encoders
    torch.save(checkpoint, path)
    return str(path)


def save_checkpoints(folder: Path, **options: Any) -> dict[str, str]:
    """Untrained modules of every stage, by the name of their option."""
    manifold = save_manifold(folder / "manifold.ckpt")
    made = {
        "remixer": make_remixer(manifold, **options),
        "aggregator": make_aggregation(),
        "translator": make_translator(),
        "mapper": make_mapper(flavour="regression"),
    }
    fused = {"frames": "ss2a-mean", "audio": "ear", "visual": "mean of 64 frames: eye"}  # as shards frames names them
    encoders = {"aggregator": fused}
    paths = {name: save_module(m, folder / f"{name}.ckpt", encoders.get(name)) for name, m in made.items()}
    return {"manifold": manifold} | paths


def save_picture(path: Path, *things: str) -> str:
    Image.fromarray(picture(*things)).save(path)
    return str(path)


def save_sound(path: Path, *tones: int, **options: Any) -> str:
    soundfile.write(path, tone(*tones, **options), 16000)
    return str(path)


def save_video(path: Path, seconds: float, *things: str, changes_to: tuple[str, ...] | None = None) -> str:
    """A video of a still picture, 8 frames a second, without sound; another picture in its second half if asked."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb" if path.suffix == ".mkv" else "libx264", rate=8)
        stream.width = stream.height = 200
        stream.pix_fmt = "rgb24" if path.suffix == ".mkv" else "yuv420p"
        stream.options = {"crf": "0"}
        count = round(8 * seconds)
        for number in range(count):
            shown = things if changes_to is None or number < count / 2 else changes_to
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(*shown), format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def small_perception(**options: Any) -> Perception:
    return Perception(small_stack(), PyAVReader(), **options)


def small_generator(**options: Any) -> ToneGenerator:
    return ToneGenerator(AUDIO_WIDTH, "ear", **options)


def read_wav(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000
    return samples
