"""Brings real sounds to a length: cut, repeated with cross-fades, or placed with rests. Arrays in, arrays out."""

from typing import Literal

import numpy as np

from lightning_ss2a.perception.media.stretch import FADE_SECONDS, faded, loudest_stretch, rising

Arrangement = Literal["whole", "cut", "repeated", "with rests"]

SUSTAINED_SECONDS = 2.0
"""A shorter sound is an event, such as a bark: repeated without a rest it would become a drone."""
EDGE_PART = 0.1
"""Part of a sound, at either end, that tells whether it goes on or dies away."""
EDGE_DECIBELS = -12.0
"""A sound goes on if neither edge is quieter than this, against the whole."""
CROSS_FADE_SECONDS = 0.5
"""Between repetitions, but at most a quarter of the sound."""
SHORTEST_REST = 0.3
"""Seconds of the mean rest between repetitions, at least."""


def arranged(
    waveform: np.ndarray, samples: int, sample_rate: int, generator: np.random.Generator
) -> tuple[np.ndarray, Arrangement]:
    """Brings a sound to a length.

    A longer sound is cut to its loudest stretch. A shorter one that goes on from end to end, such as rain, is repeated
    with cross-fades from a random point on; one that is an event, such as a bark, is placed as often as it fits, with
    rests of random lengths around it. All ends are faded.

    Args:
        waveform: float32 [any number], at least one.
        samples: how long it becomes.
        sample_rate: samples per second.
        generator: source of chance.

    Returns:
        float32 [samples], and what was done.
    """
    fade = round(FADE_SECONDS * sample_rate)
    if len(waveform) >= samples:
        cut = len(waveform) > samples
        return faded(loudest_stretch(waveform, samples), fade), "cut" if cut else "whole"
    if is_sustained(waveform, sample_rate):
        return faded(repeated(waveform, samples, sample_rate, generator), fade), "repeated"
    return with_rests(faded(waveform, fade), samples, sample_rate, generator), "with rests"


def is_sustained(waveform: np.ndarray, sample_rate: int) -> bool:
    """Tells whether a sound goes on from end to end, so that it can be repeated without a rest: [samples]."""
    edge = round(EDGE_PART * len(waveform))
    if len(waveform) < SUSTAINED_SECONDS * sample_rate or edge == 0:
        return False
    quietest = min(_power(waveform[:edge]), _power(waveform[-edge:]))
    return quietest >= _power(waveform) * 10 ** (EDGE_DECIBELS / 10)


def repeated(waveform: np.ndarray, samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Repeats a sound, each time cross-faded into itself at equal power, and begins at a random point of it.

    Args:
        waveform: float32 [fewer than ``samples``].
        samples: how long it becomes.
        sample_rate: samples per second.
        generator: source of chance.

    Returns:
        float32 [samples].
    """
    loop = _loop(waveform, min(round(CROSS_FADE_SECONDS * sample_rate), len(waveform) // 4))
    start = int(generator.integers(len(loop)))
    return np.resize(np.roll(loop, -start), samples)  # numpy's resize repeats


def with_rests(waveform: np.ndarray, samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Places a sound in silence as often as it fits, the rest of the time spread at random before, between and after.

    Args:
        waveform: float32 [at most ``samples``], faded at both ends.
        samples: how long it becomes.
        sample_rate: samples per second.
        generator: source of chance.

    Returns:
        float32 [samples].
    """
    rest = SHORTEST_REST * sample_rate
    times = max(1, int((samples - rest) // (len(waveform) + rest)))
    silence = samples - times * len(waveform)
    ends = np.floor(np.cumsum(generator.dirichlet(np.full(times + 1, 4.0)))[:-1] * silence).astype(int)
    result = np.zeros(samples, np.float32)
    for number, before in enumerate(ends):
        start = before + number * len(waveform)
        result[start : start + len(waveform)] = waveform
    return result


def _loop(waveform: np.ndarray, fade: int) -> np.ndarray:
    """Lays the end of a sound over its beginning, so that it can follow itself: [samples] to [samples - fade]."""
    if fade == 0:
        return waveform
    ramp = rising(fade).astype(np.float32)
    joint = waveform[-fade:] * ramp[::-1] + waveform[:fade] * ramp
    return np.concatenate([joint, waveform[fade:-fade]]).astype(np.float32)


def _power(waveform: np.ndarray) -> float:
    return float(np.mean(waveform.astype(np.float64) ** 2))
