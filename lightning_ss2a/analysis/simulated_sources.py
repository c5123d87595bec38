"""Draws the sources behind simulated scenes and videos again, from the world that their data set names.

Shapes: R rows, S slots for sources, W audio or visual width.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_ss2a.data.format.convert import group_of
from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.loading.batch_order import Purpose, generator
from lightning_ss2a.data.simulation.dataset import DRAWN_TOGETHER, FRACTIONS
from lightning_ss2a.data.simulation.rows import PairOriginMix, draw_sources
from lightning_ss2a.data.simulation.truth import TRUTH, WORLD, read_truth, read_world
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import local_path


@dataclass(frozen=True)
class SimulatedSources:
    """Sources of the rows of a split, by slot.

    Attributes:
        filled: which slots hold one, bool [R, S].
        gains: of each, float64 [R, S]; 0 where there is none.
        visual: float32 [R, S, W].
        audio: float32 [R, S, W].
    """

    filled: np.ndarray
    gains: np.ndarray
    visual: np.ndarray
    audio: np.ndarray


def draw_sources_again(dataset: str, split: str) -> SimulatedSources:
    """Draws the sources of simulated scenes or videos again, in the order of the rows.

    Args:
        dataset: folder of a simulated data set.
        split: name of the split.

    Raises:
        InputError: rows are mismatched, or the sources are not those that the truth tells of.
    """
    world, kind, truth = read_world(dataset), Manifest.load(dataset).kind, read_truth(dataset, split)
    seed, size, (rows, slots) = world_seed(dataset), DRAWN_TOGETHER[kind], truth["gains"].shape
    parts = []
    for number in range(-(-rows // size)):
        random = generator(seed, Purpose.SIMULATED_ROWS, group_of(split.encode()), number)
        _, mismatched = PairOriginMix(FRACTIONS, {}).draw(random, size)
        drawn = draw_sources(world, slots, mismatched, random)
        both = []
        for items in (drawn.visual, drawn.audio):
            padded = np.zeros((size, slots, items.shape[1]), np.float32)
            padded[drawn.filled] = items
            both.append(padded)
        parts.append((drawn.filled, drawn.gains, *both))
    sources = SimulatedSources(*(np.concatenate(columns)[:rows] for columns in zip(*parts, strict=True)))
    if truth["mismatched"].any() or not np.array_equal(sources.gains, truth["gains"]):
        raise InputError(f"{dataset}: the sources of split {split} cannot be drawn again; simulate it with mismatch 0")
    return sources


def world_seed(dataset: str) -> int:
    """Reads the seed of a simulated data set and of its world."""
    return int(json.loads(Path(local_path(dataset), TRUTH, WORLD).read_bytes())["seed"])
