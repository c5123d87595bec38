"""Makes one scene or video of single sources: draws what comes together, mixes sounds, lays out pictures.

Arrays in, arrays out: nothing is read and nothing is encoded here. Letters: S sources, N samples, T frames.

    scene   every sound lasts as long as the longest one (at most 10 s): shorter ones are repeated
    video   10 s; every source is seen and heard in one interval, and there is always at least one
    both    each sound is brought to the same root mean square, then made quieter by its gain; the mix is their sum
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_ss2a.data import FRAMES_PER_VIDEO
from lightning_ss2a.perception.media.files import LONGEST_SIDE, resize_image

RMS = 0.1
"""Root mean square of each sound before its gain: -20 dB of full scale."""
QUIETEST_GAIN = -12.0
"""Decibels; gains are uniform from here to 0."""
LONGEST_SCENE = 10.0
"""Seconds; longer sounds are cut."""
VIDEO_SECONDS = 10.0
SHORTEST_ACTIVATION = 2.0
"""Seconds that a source of a video is seen and heard, at least."""
FADE = 0.01
"""Seconds in which a source of a video fades in and out, so that switching it makes no click."""
CANVAS_SIDE = LONGEST_SIDE
"""Pixels of a collage."""
SMALLEST_SCALE = 0.6
"""A picture takes this part of its cell's side, at least."""

FRAME_TIMES = np.arange(FRAMES_PER_VIDEO) * VIDEO_SECONDS / FRAMES_PER_VIDEO
"""Seconds of the frames of a video, [64]."""


@dataclass(frozen=True)
class Place:
    """A square on the canvas, in pixels."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class Source:
    """A source of a composition, as it was drawn.

    Attributes:
        row: its pair: an item of the groups that it was drawn from.
        view: which view of the picture.
        gain: decibels, -12 to 0.
        window: 0 to 1: which of the possible windows of a sound that is too long.
        place: where its picture is.
        interval: start and stop in seconds; None in a scene.
    """

    row: Any
    view: int
    gain: float
    window: float
    place: Place
    interval: tuple[float, float] | None

    @property
    def video_interval(self) -> tuple[float, float]:
        """Start and stop in seconds of a source of a video."""
        assert self.interval is not None, "a source of a scene"
        return self.interval


def draw_sources(
    groups: Sequence[Sequence[Any]], views: int, max_sources: int, videos: bool, generator: np.random.Generator
) -> list[Source]:
    """Draws the sources of a scene or video: 1 to ``max_sources``, each of another group.

    Args:
        groups: pairs of each group; at least ``max_sources`` groups.
        views: views of each picture.
        max_sources: how many sources at most.
        videos: draw intervals as well.
        generator: source of chance.
    """
    count = int(generator.integers(1, max_sources + 1))
    chosen = generator.choice(len(groups), count, replace=False)
    rows = [groups[group][int(generator.integers(len(groups[group])))] for group in chosen]
    chosen_views = generator.integers(views, size=count).tolist()
    gains = draw_gains(count, generator)
    windows = generator.random(count).tolist()
    places = draw_places(count, generator)
    intervals = draw_intervals(count, generator) if videos else [None] * count
    parts = zip(rows, chosen_views, gains, windows, places, intervals, strict=True)
    return [Source(*part) for part in parts]


def draw_gains(sources: int, generator: np.random.Generator) -> list[float]:
    """Draws gains in dB, uniform in -12 to 0, but 0 for one source drawn at random; in steps of 0.01, as written."""
    gains = generator.uniform(QUIETEST_GAIN, 0.0, sources).round(2)
    gains[generator.integers(sources)] = 0.0
    return gains.tolist()


def draw_places(sources: int, generator: np.random.Generator) -> list[Place]:
    """Draws a place for each picture: one has the whole canvas; of several, each lies in a cell of its own.

    The grid has as many rows as columns, the fewest that suffice; each picture takes 0.6 to 1 of its cell's side.
    """
    if sources == 1:
        return [Place(0, 0, CANVAS_SIDE)]
    columns = math.isqrt(sources - 1) + 1
    cell, places = CANVAS_SIDE // columns, []
    for number in generator.permutation(columns**2)[:sources]:
        side = round(cell * generator.uniform(SMALLEST_SCALE, 1.0))
        across, down = generator.integers(0, cell - side + 1, size=2)
        places.append(Place(int(number % columns * cell + across), int(number // columns * cell + down), side))
    return places


def draw_intervals(sources: int, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Draws start and stop (s) of each source of a video, in steps of 0.001, with no time without a source.

    Lengths are uniform from 2 s to the video's, starts uniform in what that leaves. Then gaps are closed: in the order
    of starts, a source that starts after all before it have stopped starts when the last of them stops (the first one
    at 0), and the one that stops last stays to the end. So a single source is there all the time.
    """
    lengths = generator.uniform(SHORTEST_ACTIVATION, VIDEO_SECONDS, sources)
    starts = generator.random(sources) * (VIDEO_SECONDS - lengths)
    # Rounded away from each other, so that no interval becomes shorter.
    starts, stops = np.floor(starts * 1000) / 1000, np.ceil((starts + lengths) * 1000) / 1000
    covered = 0.0
    for source in np.argsort(starts, kind="stable"):
        starts[source] = min(starts[source], covered)
        covered = max(covered, stops[source])
    stops[stops.argmax()] = VIDEO_SECONDS
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def active_sources(intervals: Sequence[tuple[float, float]], times: np.ndarray) -> np.ndarray:
    """Tells which sources are there at which time (start included, stop not): bool [T, S]."""
    starts, stops = np.array(intervals).T
    return (starts <= times[:, None]) & (times[:, None] < stops)


def fit_length(waveform: np.ndarray, samples: int, window: float) -> np.ndarray:
    """Fits a sound to a length: repeats it from its beginning, or cuts it to a window that holds its loudest sample.

    Args:
        waveform: [any number].
        samples: how long it becomes.
        window: 0 to 1: from the first to the last of the possible windows.

    Returns:
        [samples].
    """
    if len(waveform) <= samples:
        return np.resize(waveform, samples)  # numpy's resize repeats
    loudest = int(np.abs(waveform).argmax())
    first, last = max(0, loudest - samples + 1), min(loudest, len(waveform) - samples)
    start = first + min(int(window * (last - first + 1)), last - first)
    return waveform[start : start + samples]


def set_level(waveform: np.ndarray, gain: float) -> np.ndarray:
    """Brings a sound to the common root mean square, then makes it louder by ``gain`` decibels; float32 [N]."""
    level = float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))
    return (waveform * (RMS * 10 ** (gain / 20) / level)).astype(np.float32)


def gate(waveform: np.ndarray, start: int, samples: int, fade: int) -> np.ndarray:
    """Places a sound in silence, faded in and out.

    Args:
        waveform: [fewer]; at least ``fade``.
        start: its first sample in the result.
        samples: length of the result.
        fade: samples in which it goes from silence to itself, and back.

    Returns:
        [samples].
    """
    faded = waveform.copy()
    ramp = np.arange(fade, dtype=np.float32) / fade
    faded[:fade] *= ramp
    faded[len(faded) - fade :] *= ramp[::-1]
    return np.pad(faded, (start, samples - start - len(faded)))


def scene_parts(sounds: Sequence[np.ndarray], sources: Sequence[Source], sample_rate: int) -> np.ndarray:
    """Makes what each source adds to the sound of a scene: float32 [S, N]."""
    samples = min(max(map(len, sounds)), round(LONGEST_SCENE * sample_rate))
    pairs = zip(sounds, sources, strict=True)
    return np.stack([set_level(fit_length(sound, samples, s.window), s.gain) for sound, s in pairs])


def video_parts(sounds: Sequence[np.ndarray], sources: Sequence[Source], sample_rate: int) -> np.ndarray:
    """Makes what each source adds to the sound of a video: float32 [S, N]. A sound begins when its source appears."""
    parts = []
    for sound, source in zip(sounds, sources, strict=True):
        start, stop = (round(time * sample_rate) for time in source.video_interval)
        own = set_level(fit_length(sound, stop - start, source.window), source.gain)
        parts.append(gate(own, start, round(VIDEO_SECONDS * sample_rate), round(FADE * sample_rate)))
    return np.stack(parts)


def mix(parts: np.ndarray) -> np.ndarray:
    """Sums the parts, made quieter as a whole if the peak would pass 1: [S, N] to [N]."""
    total = parts.sum(axis=0)
    return total / max(1.0, float(np.abs(total).max()))


def loudest_source(parts: np.ndarray) -> int:
    """Finds the source with the most energy: [S, N] to its number."""
    return int((parts.astype(np.float64) ** 2).sum(axis=1).argmax())


def collage(pictures: Sequence[np.ndarray], places: Sequence[Place]) -> np.ndarray:
    """Lays square pictures, uint8 [side, side, 3], on white at their places: uint8 [512, 512, 3]."""
    canvas = np.full((CANVAS_SIDE, CANVAS_SIDE, 3), 255, np.uint8)
    for picture, place in zip(pictures, places, strict=True):
        rows, columns = slice(place.top, place.top + place.side), slice(place.left, place.left + place.side)
        canvas[rows, columns] = resize_image(picture, place.side)
    return canvas
