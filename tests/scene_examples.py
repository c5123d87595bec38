"""Small data sets of scenes and videos that can be learned, and a manifold for them, made in well under a second."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_ss2a.data import FRAMES_PER_VIDEO, FieldSpec, LabelHead, Ragged, ShardWriter
from lightning_ss2a.training import (
    AudioToVisualModule,
    RemixerModule,
    TemporalAggregationModule,
    V2AMapperModule,
)
from tests.manifold_examples import AUDIO_WIDTH, CLASSES, LABELS, VISUAL_WIDTH, in_groups, make_module, noisy

CAUSE = 4
MOST_SOURCES = 3


class SmallWorld:
    """Sources whose two sides are linear images of one cause, as in ``write_learnable_pairs``."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.to_visual, self.to_audio = (self.random.normal(size=(CAUSE, w)) for w in (VISUAL_WIDTH, AUDIO_WIDTH))
        head = [torch.from_numpy(self.random.normal(size=shape)).float() for shape in ((LABELS, AUDIO_WIDTH), LABELS)]
        self.head = LabelHead(*head, tuple(f"label{i}" for i in range(LABELS)))

    def causes(self, count: int) -> np.ndarray:
        return self.random.normal(size=(count, CAUSE))

    def see(self, causes: np.ndarray) -> np.ndarray:
        return noisy(self.random, causes @ self.to_visual + 0.5)

    def hear(self, causes: np.ndarray) -> np.ndarray:
        return noisy(self.random, causes @ self.to_audio + 0.3)

    def writer(self, folder: Path, kind: str, fields: dict[str, FieldSpec], with_head: bool) -> ShardWriter:
        head = self.head if with_head else None
        options = {"provenance": "made for a test", "licence": "CC0", "label_head": head, "block_rows": 8}
        return ShardWriter(folder, kind=kind, fields=fields, classes=list(CLASSES), **options)


def visual_field(**options: Any) -> FieldSpec:
    return FieldSpec(width=VISUAL_WIDTH, encoder="eye", dtype="float32", **options)


AUDIO_FIELD = FieldSpec(width=AUDIO_WIDTH, encoder="ear", dtype="float32")


def write_learnable_scenes(
    folder: Path,
    rows: dict[str, int] | None = None,
    *,
    seed: int = 0,
    global_views: int | None = None,
    with_head: bool = True,
    repeated: bool = True,
) -> str:
    """Scenes of 1 to 3 sources, whose audio is that of their mean cause. Sources are repeated between scenes."""
    world = SmallWorld(seed)
    fields = {
        "sources": visual_field(ragged=True),
        "global_visual": visual_field(views=global_views),
        "audio": AUDIO_FIELD,
    }
    pool = world.causes(20 if repeated else 500)
    seen = world.see(pool)
    with world.writer(folder, "scenes", fields, with_head) as writer:
        first = 0
        for split, count in (rows or {"train": 53, "validation": 23}).items():
            counts = world.random.integers(1, MOST_SOURCES + 1, count)
            chosen = [world.random.choice(len(pool), n, replace=False) for n in counts]
            means = np.stack([pool[c].mean(0) for c in chosen])
            offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
            items = np.concatenate(chosen)
            number = np.arange(first, first + count)
            global_visual = np.stack([world.see(means) for _ in range(global_views or 1)], axis=1)
            writer.write(
                split,
                {
                    "sources": Ragged(seen[items], offsets),
                    "global_visual": global_visual if global_views else global_visual[:, 0],
                    "audio": world.hear(means),
                    "classes": Ragged((items % len(CLASSES)).astype(np.int32), offsets),
                    "pair_origin": np.zeros(count, np.uint8),
                    "group": number,
                    "key": np.array([f"scene{n}" for n in number], np.bytes_),
                },
            )
            first += count
    return str(folder)


def write_learnable_videos(
    folder: Path, rows: dict[str, int] | None = None, *, seed: int = 0, role: str = "audio", with_head: bool = True
) -> str:
    """Videos that change from one cause to another somewhere; their audio is that of the mean over time."""
    world = SmallWorld(seed)
    frames = AUDIO_FIELD if role == "audio" else visual_field()
    fields = {"frames": FieldSpec(frames.width, frames.encoder, "float32", role=role), "audio": AUDIO_FIELD}
    with world.writer(folder, "videos", fields, with_head) as writer:
        first = 0
        for split, count in (rows or {"train": 53, "validation": 23}).items():
            causes = np.stack([world.causes(count), world.causes(count)], axis=1)
            change = world.random.integers(1, FRAMES_PER_VIDEO, count)
            which = (np.arange(FRAMES_PER_VIDEO) >= change[:, None]).astype(int)
            every = causes[np.arange(count)[:, None], which]  # [videos, frames, cause]
            number = np.arange(first, first + count)
            writer.write(
                split,
                {
                    "frames": world.hear(every) if role == "audio" else world.see(every),
                    "audio": world.hear(every.mean(1)),
                    "class_index": (number % len(CLASSES)).astype(np.int32),
                    "pair_origin": np.zeros(count, np.uint8),
                    "group": number,
                    "timestamps": np.tile(np.arange(FRAMES_PER_VIDEO, dtype=np.float32) / 6.4, (count, 1)),
                    "key": np.array([f"video{n}" for n in number], np.bytes_),
                },
            )
            first += count
    return str(folder)


def save_manifold(path: Path, seed: int = 0, **options: Any) -> str:
    """A checkpoint of an untrained manifold, as the trainer saves it."""
    from tests.manifold_examples import make_trainer

    module = make_module(seed, **options)
    trainer = make_trainer(path.parent)
    trainer.strategy.connect(module)
    trainer.strategy._lightning_module = module
    trainer.save_checkpoint(path)
    return str(path)


SMALL_ATTENTION = {"width": 16, "num_heads": 2, "head_widths": (16,)}
TRAINING = {"learning_rate": 3e-3, "top_n": 4}


def make_remixer(manifold: str, seed: int = 0, **options: Any) -> RemixerModule:
    """A tiny module, with dropout and sampling unless told otherwise."""
    torch.manual_seed(seed)
    plain = SMALL_ATTENTION | TRAINING | {"iterations": 3, "samples": 4}
    return RemixerModule(VISUAL_WIDTH, AUDIO_WIDTH, manifold, **in_groups(RemixerModule, plain | options))


def make_aggregation(seed: int = 0, **options: Any) -> TemporalAggregationModule:
    """A tiny module, with dropout and sampling unless told otherwise."""
    torch.manual_seed(seed)
    plain = SMALL_ATTENTION | TRAINING
    return TemporalAggregationModule(AUDIO_WIDTH, **in_groups(TemporalAggregationModule, plain | options))


def make_mapper(seed: int = 0, **options: Any) -> V2AMapperModule:
    """A tiny module, generative unless told otherwise."""
    torch.manual_seed(seed)
    small = {"hidden_widths": (16, 16), "num_layers": 1, "num_heads": 2, "head_width": 8, "sample_steps": 3}
    return V2AMapperModule(VISUAL_WIDTH, AUDIO_WIDTH, **in_groups(V2AMapperModule, small | TRAINING | options))


def make_translator(seed: int = 0, **options: Any) -> AudioToVisualModule:
    """A tiny module, with dropout unless told otherwise."""
    torch.manual_seed(seed)
    plain = {"hidden_widths": (16, 16), "learning_rate": 3e-3}
    return AudioToVisualModule(VISUAL_WIDTH, AUDIO_WIDTH, **in_groups(AudioToVisualModule, plain | options))
