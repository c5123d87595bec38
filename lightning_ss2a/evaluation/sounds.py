"""Reads the sounds that are measured, by one rule, and tells of each how long, how loud and how sound it is."""

from dataclasses import astuple, dataclass

import numpy as np

from lightning_ss2a.perception.media.files import decode_audio
from lightning_ss2a.perception.media.waveform import SILENT_PEAK, at_rate, check_sound

FULL_SCALE = 0.999
"""A sample that reaches this, of 1, is at the end of the scale."""
CLIPPED_SAMPLES = 3
"""So many samples in a row at the end of the scale are a clipped peak; a single one is a peak that was normalised."""
FACTS = "facts-v1"
"""What stands for an encoder's identity where facts are cached."""


@dataclass(frozen=True)
class SoundFacts:
    """What a sound is like, whatever it means.

    Attributes:
        seconds: of the whole file, float32 as the others.
        peak: highest sample, of 1, in the part that is heard.
        clipped: part of its samples in runs at the end of the scale, in 0 to 1.
    """

    seconds: float
    peak: float
    clipped: float

    @property
    def silent(self) -> bool:
        """Whether no sample reaches -80 dB of full scale."""
        return self.peak < SILENT_PEAK

    def row(self) -> np.ndarray:
        """Gives the numbers, float32 [1, 3]."""
        return np.array([astuple(self)], np.float32)

    @classmethod
    def of_row(cls, row: np.ndarray) -> "SoundFacts":
        """Makes them of what :meth:`row` gave."""
        return cls(*map(float, row[0]))


@dataclass(frozen=True)
class Sound:
    """A mono sound at its own rate.

    Attributes:
        waveform: float32 [samples], the part that is heard.
        rate: its samples per second.
        facts: what it is like.
    """

    waveform: np.ndarray
    rate: int
    facts: SoundFacts

    def at_rate(self, sample_rate: int) -> np.ndarray:
        """Gives it at an encoder's rate: float32 [samples]."""
        return at_rate(self.waveform, self.rate, sample_rate)


def read_sound(data: bytes, name: str, seconds: float | None) -> Sound:
    """Reads a sound as every encoder is given it: the mean of its channels, cut to its first seconds.

    Silence is a result like others, and is read.

    Args:
        data: the file, of any kind that :func:`lightning_ss2a.perception.media.files.load_audio` reads.
        name: its name, for messages.
        seconds: how much of it is heard; None: all.

    Raises:
        InputError: it is not a sound, cut off, empty, or not finite.
    """
    whole, rate = decode_audio(data, name)
    check_sound(whole, rate, name)
    waveform = whole if seconds is None else whole[: max(1, round(seconds * rate))]
    facts = SoundFacts(len(whole) / rate, float(np.abs(waveform).max()), clipped_part(waveform))
    return Sound(waveform, rate, SoundFacts.of_row(facts.row()))  # as it comes out of a cache


def clipped_part(waveform: np.ndarray) -> float:
    """Computes the part of a sound's samples that are in runs of at least three at the end of the scale.

    Args:
        waveform: float32 [samples], at least one.

    Example:
        >>> clipped_part(np.array([0, 1, 1, 1, 0, -1, 0, 1], np.float32))
        0.375
    """
    full = np.concatenate([[False], np.abs(waveform) >= FULL_SCALE, [False]])
    edges = np.flatnonzero(full[1:] != full[:-1])  # start and end of each run
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= CLIPPED_SAMPLES].sum() / len(waveform))


def describe_rule(seconds: float | None) -> str:
    """States the rule for reports and for names in the cache."""
    part = "all" if seconds is None else f"first {seconds:g} s"
    return f"mean of channels, {part}, polyphase resampling to each encoder's rate; silence is heard"
