"""Draws rows of the simulated world: pairs, scenes and videos, each with its truth.

Letters: R rows, S slots for sources (most in a row), N sources of all rows, T frames, W width. From the unit embeddings
v_s, a_s of the sources of a row (:mod:`lightning_ss2a.data.simulation.world`):

    pair    visual = v,  audio = a
    scene   sources = v_1 .. v_n, n uniform in 1 .. S, classes distinct;  gains ~ Dirichlet;  sizes uniform, apart
            global_visual = normalise(sum_s size_s^power / sum size^power  v_s + noise)
            audio         = normalise(sum_s gain_s a_s + noise)
    video   source s is active (heard and seen) from start_s to stop_s
            frame_t = normalise(sum of size_s v_s over the sources active at t + noise); the cone alone where none is
            audio   = normalise(sum_s gain_s (stop_s - start_s) / length  a_s + noise)
            class_index: the class of the largest gain x active time

In a mismatched scene or video every audible source is of another class than all visible ones.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lightning_ss2a.data.format.columns import Columns, Ragged
from lightning_ss2a.data.format.schema import FRAMES_PER_VIDEO, PAIR_ORIGINS
from lightning_ss2a.data.simulation.world import World, normalise
from lightning_ss2a.errors import InputError

NO_SOURCE = -1
"""Class of an empty slot in the truth."""


@dataclass(frozen=True)
class PairOriginMix:
    """The parts of the rows by pair origin, and how often their audio is not that of what is seen.

    Args:
        fractions: part of all rows, by origin; sums to 1.
        mismatch: part of the rows of that origin, by origin.

    Raises:
        InputError: names the argument that cannot be.
    """

    fractions: Mapping[str, float]
    mismatch: Mapping[str, float]

    def __post_init__(self) -> None:
        for argument, given in (("pair_origins", self.fractions), ("mismatch", self.mismatch)):
            for origin, number in given.items():
                if origin not in PAIR_ORIGINS:
                    raise InputError(f"{argument} has no {origin!r}: known are {', '.join(PAIR_ORIGINS)}")
                if not 0 <= number <= 1:
                    raise InputError(f"{argument}: {origin} is {number}, needs 0 to 1")
        if abs(sum(self.fractions.values()) - 1) > 1e-6:
            raise InputError(f"pair_origins are parts of all rows and sum to {sum(self.fractions.values())}, needs 1")

    @property
    def mismatches(self) -> bool:
        """Whether any row may be mismatched."""
        return any(self.fractions.get(origin, 0) * rate > 0 for origin, rate in self.mismatch.items())

    def draw(self, random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws each row's origin, uint8 [rows], and whether it is mismatched, bool [rows]."""
        fractions = np.array([self.fractions.get(origin, 0.0) for origin in PAIR_ORIGINS])
        origin = inverse_cdf(fractions, random.random(rows)).astype(np.uint8)
        rates = np.array([self.mismatch.get(name, 0.0) for name in PAIR_ORIGINS])
        return origin, random.random(rows) < rates[origin]


@dataclass(frozen=True)
class Drawn:
    """Rows.

    Attributes:
        columns: embedding fields (float32), classes, origin and timestamps, as a data set holds them.
        truth: what no training may see; arrays [rows, ...], slots without a source hold ``NO_SOURCE`` and zeros.
    """

    columns: Columns
    truth: dict[str, np.ndarray]


def inverse_cdf(probability: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draws from a discrete distribution: the position in which uniform numbers in [0, 1) fall."""
    edges = np.cumsum(probability)
    edges[probability.nonzero()[0][-1] :] = np.inf  # rounding must not reach what cannot happen
    return np.searchsorted(edges, uniform, side="right")


def draw_other_classes(frequency: np.ndarray, classes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draws a class by frequency, but never the given one, [rows].

    The given class is cut out of the interval 0 to 1; numbers beyond it move up by its length.
    """
    length = frequency[classes]
    uniform = uniform * (1 - length)
    uniform = np.where(uniform < np.cumsum(frequency)[classes] - length, uniform, uniform + length)
    other = inverse_cdf(frequency, uniform)
    # Rounding at the edge of the part cut out.
    return np.where(other == classes, (classes + 1) % len(frequency), other)


def draw_pairs(world: World, origins: PairOriginMix, random: np.random.Generator, rows: int) -> Drawn:
    """Draws pairs; truth: visual_class, audio_class, mismatched."""
    origin, mismatched = origins.draw(random, rows)
    seen = inverse_cdf(world.frequency, random.random(rows))
    other = draw_other_classes(world.frequency, seen, random.random(rows))
    heard = np.where(mismatched, other, seen)
    # What a pair shows of loudness says nothing of its sound, which is alone.
    loudness = world.loudness(_draw_gains(world, random, seen.shape)) if world.spec.loudness_share else None
    visual, audio = _embed_sources(world, seen, heard, mismatched, loudness, random)
    columns: Columns = {"visual": visual, "audio": audio, "class_index": seen.astype(np.int32), "pair_origin": origin}
    return Drawn(columns, {"visual_class": seen, "audio_class": heard, "mismatched": mismatched})


def draw_scenes(world: World, origins: PairOriginMix, random: np.random.Generator, rows: int) -> Drawn:
    """Draws scenes; truth: visual_classes, audio_classes, gains, sizes [rows, slots], mismatched."""
    spec = world.spec
    origin, mismatched = origins.draw(random, rows)
    sources = draw_sources(world, spec.scene_sources, mismatched, random)
    filled, counts = sources.filled, sources.filled.sum(1)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    weights = np.where(filled, sources.sizes, 0) ** spec.size_power * filled
    weights /= weights.sum(1, keepdims=True)
    global_visual = _mixture(world, weights[filled], sources.visual, offsets, random)
    audio = _mixture(world, sources.gains[filled], sources.audio, offsets, random)
    columns: Columns = {
        "sources": Ragged(sources.visual, offsets),
        "global_visual": global_visual,
        "audio": audio,
        "classes": Ragged(sources.seen[filled].astype(np.int32), offsets),
        "pair_origin": origin,
    }
    return Drawn(columns, sources.truth() | {"mismatched": mismatched})


def draw_videos(world: World, origins: PairOriginMix, random: np.random.Generator, rows: int) -> Drawn:
    """Draws videos; truth: as scenes, and starts and stops [rows, slots] in seconds."""
    spec = world.spec
    origin, mismatched = origins.draw(random, rows)
    sources = draw_sources(world, spec.video_sources, mismatched, random)
    filled = sources.filled
    length = random.uniform(spec.shortest_activation, 1, filled.shape) * spec.video_seconds * filled
    start = random.random(filled.shape) * (spec.video_seconds - length) * filled
    times = (np.arange(FRAMES_PER_VIDEO) * spec.video_seconds / FRAMES_PER_VIDEO).astype(np.float32)
    loudness = sources.gains * length / spec.video_seconds
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(filled.sum(1))])
    loudest = np.argmax(loudness, axis=1)
    columns: Columns = {
        "frames": _frames(world, sources, (start, start + length), times, random),
        "audio": _mixture(world, loudness[filled], sources.audio, offsets, random),
        "class_index": sources.seen[np.arange(rows), loudest].astype(np.int32),
        "pair_origin": origin,
        "timestamps": np.tile(times, (rows, 1)),
    }
    truth = sources.truth() | {"starts": start, "stops": start + length, "mismatched": mismatched}
    return Drawn(columns, truth)


Draw = Callable[[World, PairOriginMix, np.random.Generator, int], Drawn]
DRAW: dict[str, Draw] = {"pairs": draw_pairs, "scenes": draw_scenes, "videos": draw_videos}
"""What draws the rows of each kind."""


@dataclass(frozen=True)
class Sources:
    """Sources of rows: classes, gains and sizes by slot [R, S], embeddings of the filled slots [N, W]."""

    filled: np.ndarray
    seen: np.ndarray
    heard: np.ndarray
    gains: np.ndarray
    sizes: np.ndarray
    visual: np.ndarray
    audio: np.ndarray

    def truth(self) -> dict[str, np.ndarray]:
        """Lists what a data set's truth tells of them, by name."""
        return {
            "visual_classes": np.where(self.filled, self.seen, NO_SOURCE),
            "audio_classes": np.where(self.filled, self.heard, NO_SOURCE),
            "gains": self.gains,
            "sizes": self.sizes,
        }


def draw_sources(world: World, slots: int, mismatched: np.ndarray, random: np.random.Generator) -> Sources:
    """Draws sources of rows.

    Args:
        world: of the sources.
        slots: most sources in a row.
        mismatched: rows whose audible sources are of other classes than the visible ones, bool [R].
        random: source of randomness.
    """
    rows = len(mismatched)
    filled = np.arange(slots) < random.integers(1, slots + 1, size=(rows, 1))
    # Distinct classes by frequency: the largest of log frequency + Gumbel noise (Gumbel top-k). The first of them are
    # seen, the next are heard instead where the row is mismatched (without such rows there may be too few classes).
    order = np.argsort(-np.log(world.frequency) - random.gumbel(size=(rows, world.num_classes)), axis=1)
    seen = order[:, :slots]
    others = order.take(range(slots, 2 * slots), axis=1, mode="wrap")
    heard = np.where(mismatched[:, None], others, seen)
    draws = _draw_gains(world, random, (rows, slots))
    gains = np.where(filled, draws, 0)
    gains /= gains.sum(1, keepdims=True)
    sizes = (1 - random.random((rows, slots))) * filled
    apart = np.broadcast_to(mismatched[:, None], filled.shape)[filled]
    visual, audio = _embed_sources(world, seen[filled], heard[filled], apart, world.loudness(draws[filled]), random)
    return Sources(filled, seen, heard, gains, sizes, visual, audio)


def _draw_gains(world: World, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws gains before those of a row are made to sum to 1, which makes them Dirichlet."""
    return random.standard_gamma(world.spec.gain_concentration, shape) + 1e-9  # small gammas may all be 0


def _embed_sources(
    world: World,
    seen: np.ndarray,
    heard: np.ndarray,
    apart: np.ndarray,
    loudness: np.ndarray | None,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeds sources, visual and audio, [N, W]; those ``apart`` share no instance."""
    latent = world.latent(len(seen), random)
    visual = world.visual.embed(seen, latent, random, loudness)
    # Numbers that matched rows do not need: how many there are decides all that is drawn from here on, for every row.
    latent[apart] = world.latent(int(apart.sum()), random)
    return visual, world.audio.embed(heard, latent, random)


def _mixture(
    world: World, weights: np.ndarray, items: np.ndarray, offsets: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Mixes: normalise(weighted sum of each row's items + noise), float32 [R, W]; weights [N], items [N, W]."""
    mixed = np.add.reduceat(items * weights[:, None].astype(np.float32), offsets[:-1], axis=0)
    return normalise(mixed + _noise(world, mixed.shape, random))


def _noise(world: World, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    noise = random.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(world.spec.mixture_noise / math.sqrt(shape[-1]))
    return noise


def _frames(
    world: World,
    sources: Sources,
    interval: tuple[np.ndarray, np.ndarray],
    times: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Makes the frames of videos, float32 [R, T, W]."""
    rows, slots = sources.filled.shape
    start, stop = (edge[:, None] for edge in interval)  # [R, 1, S]
    active = (start <= times[:, None]) & (times[:, None] < stop) & sources.filled[:, None]  # [R, T, S]
    visual = np.zeros((rows, slots, sources.visual.shape[1]), np.float32)
    visual[sources.filled] = sources.visual
    frames = np.einsum("rts,rsw->rtw", (active * sources.sizes[:, None]).astype(np.float32), visual)
    frames += _noise(world, frames.shape, random)
    frames[~active.any(2)] += world.visual.cone
    return normalise(frames)
