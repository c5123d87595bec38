"""Simulated sources drawn again, for what a data set does not hold: their sound, and other targets made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DECAY = 2.5
"""Seconds in which a sound of the target ``decaying`` counts 1 / e of what it did."""

TARGETS = ("whole", "decaying", "first")


@dataclass(frozen=True)
class Sources:
    """Sources of the rows of a split, by slot: R rows, S slots, W width.

    Attributes:
        filled: which slots hold one, bool [R, S].
        gains: float64 [R, S], 0 where there is none.
        visual: float32 [R, S, W].
        audio: float32 [R, S, W].
    """

    filled: np.ndarray
    gains: np.ndarray
    visual: np.ndarray
    audio: np.ndarray


def sources_of(dataset: str, split: str) -> Sources:
    """Sources of simulated scenes or videos without mismatched rows, drawn as the data set's were.

    Raises:
        ValueError: they are not those that the truth tells of.
    """
    from lightning_ss2a.data.format.convert import group_of
    from lightning_ss2a.data.format.manifest import Manifest
    from lightning_ss2a.data.loading.batch_order import Purpose, generator
    from lightning_ss2a.data.simulation.dataset import DRAWN_TOGETHER, FRACTIONS
    from lightning_ss2a.data.simulation.rows import PairOriginMix, _draw_sources
    from lightning_ss2a.data.simulation.truth import read_truth, read_world

    world, kind, truth = read_world(dataset), Manifest.load(dataset).kind, read_truth(dataset, split)
    size, rows, slots = DRAWN_TOGETHER[kind], *truth["gains"].shape
    seed, parts = world_seed(dataset), []
    for number in range(-(-rows // size)):
        random = generator(seed, Purpose.SIMULATED_ROWS, group_of(split.encode()), number)
        _, mismatched = PairOriginMix(FRACTIONS, {}).draw(random, size)
        drawn = _draw_sources(world, slots, mismatched, random)
        both = []
        for items in (drawn.visual, drawn.audio):
            padded = np.zeros((size, slots, items.shape[1]), np.float32)
            padded[drawn.filled] = items
            both.append(padded)
        parts.append((drawn.filled, drawn.gains, *both))
    sources = Sources(*(np.concatenate(columns)[:rows] for columns in zip(*parts, strict=True)))
    if not np.array_equal(sources.gains, truth["gains"]):
        raise ValueError(f"{dataset}: the sources of split {split} are not those of its truth")
    return sources


def world_seed(dataset: str) -> int:
    """Seed of a simulated data set."""
    import json

    from lightning_ss2a.data.simulation.truth import TRUTH, WORLD

    return json.loads(Path(dataset, TRUTH, WORLD).read_bytes())["seed"]


def source_weights(target: str, gains: np.ndarray, starts: np.ndarray, stops: np.ndarray, seconds: float) -> np.ndarray:
    """How much each source counts in a target, [R, S]; the sum over a row is that of ``whole``.

    ``whole``: gain x active time / length, as the simulated videos have it. ``decaying``: gain x the integral of
    exp(-t / DECAY) over the time that it is active. ``first``: the source that starts first, and no other.
    """
    whole = gains * (stops - starts) / seconds
    if target == "whole":
        return whole
    if target == "decaying":
        weights = gains * (np.exp(-starts / DECAY) - np.exp(-stops / DECAY))
    elif target == "first":
        first = np.where(gains > 0, starts, np.inf).argmin(1)
        weights = np.eye(gains.shape[1])[first]
    else:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    return weights * (whole.sum(1) / weights.sum(1))[:, None]


def mixed_audio(weights: np.ndarray, audio: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """normalise(weighted sum of the sources' embeddings + noise of that length), float32 [R, W]."""
    mixed = np.einsum("rs,rsw->rw", weights, audio)
    mixed = mixed + np.random.default_rng(seed).standard_normal(mixed.shape) * noise / np.sqrt(mixed.shape[1])
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def oracle_frames(
    sources: Sources, starts: np.ndarray, stops: np.ndarray, timestamps: np.ndarray, cone: np.ndarray
) -> np.ndarray:
    """What is heard at each frame, float32 [R, T, W]: normalise(sum of gain x audio of what is active); else the cone.

    Args:
        sources: of the rows.
        starts: seconds, [R, S].
        stops: seconds, [R, S].
        timestamps: of the frames, [R, T].
        cone: direction that all audio has in common, [W].
    """
    times = timestamps[:, :, None]
    active = (starts[:, None] <= times) & (times < stops[:, None]) & sources.filled[:, None]  # [R, T, S]
    frames = np.einsum("rts,rsw->rtw", active * sources.gains[:, None], sources.audio)
    frames[~active.any(2)] = cone
    return (frames / np.linalg.norm(frames, axis=2, keepdims=True)).astype(np.float32)


def rewrite(source: str, output: str, changed: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """A data set with other values of some fields.

    Args:
        source: folder of the data set.
        output: folder of the new one.
        changed: values by split and field, rows in the order of the split.
    """
    from lightning_ss2a.data.format.manifest import Manifest
    from lightning_ss2a.data.format.writer import ShardWriter
    from lightning_ss2a.data.loading.dataset import ShardDataset

    manifest = Manifest.load(source)
    with ShardWriter(
        output, manifest.kind, manifest.fields, manifest.classes,
        provenance=manifest.provenance, licence=manifest.licence,
        label_head=manifest.load_label_head(source), overwrite=True,
    ) as writer:  # fmt: skip
        for split in manifest.splits:
            rows = ShardDataset(source, split).columns()
            columns = {name: np.array(x, np.bytes_) if isinstance(x, list) else x.numpy() for name, x in rows.items()}
            del columns["index"]
            writer.write(split, columns | dict(changed.get(split, {})))
