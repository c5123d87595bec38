"""States the one rule by which every sound becomes a waveform, whichever library has decoded it.

The mean of its channels, out of it the wanted part, then a polyphase resampling (scipy's ``resample_poly``) to the
wanted rate; a sound that is empty, silent, not finite, or cut off is refused.
"""

import math

import numpy as np

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.packages import media_package

MOST_SAMPLES = 1 << 28
"""Of all channels of a sound: 50 minutes of stereo at 44.1 kHz, 1 GB once unpacked."""
SAMPLE_RATES = (1_000, 768_000)
"""Samples per second of a sound; others are damage, and would make its resampled form or the filter huge."""
MOST_MISSING = (0.5, 0.05)
"""Seconds, and part of the whole, that may be missing at the end: headers are that inaccurate. The larger counts."""

SILENT_PEAK = 1e-4
"""Of a sound that counts as silent no sample reaches this, -80 dB of full scale."""


def mean_of_channels(channels: np.ndarray) -> np.ndarray:
    """Makes a sound mono: float32 [samples, channels] to [samples]."""
    return channels.mean(axis=1)


def cut_window(waveform: np.ndarray, rate: int, window: tuple[float, float], name: str) -> np.ndarray:
    """Cuts a part out of a mono sound, which ends with the sound if that ends first.

    Args:
        waveform: float32 [samples].
        rate: its samples per second.
        window: seconds (start, end).
        name: the file's name, for messages.

    Raises:
        InputError: nothing of the sound is in the window.
    """
    part = waveform[round(window[0] * rate) : round(window[1] * rate)]
    if not len(part):
        raise InputError(
            f"{name}: no sound from {window[0]:g} s to {window[1]:g} s; it ends at {len(waveform) / rate:g} s"
        )
    return part


def resample(waveform: np.ndarray, rate: int, sample_rate: int, name: str) -> np.ndarray:
    """Checks a mono sound and gives it at the wanted rate.

    Args:
        waveform: float32 [samples].
        rate: its samples per second.
        sample_rate: samples per second of the result.
        name: the file's name, for messages.

    Returns:
        float32 [samples].

    Raises:
        InputError: it is empty, silent (no sample above -80 dB), of an impossible rate, or not finite.
    """
    check_sound(waveform, rate, name)
    if np.abs(waveform).max() < SILENT_PEAK:
        raise InputError(f"{name}: the sound is silent")
    return at_rate(waveform, rate, sample_rate)


def check_sound(waveform: np.ndarray, rate: int, name: str) -> None:
    """Checks a mono sound, float32 [samples], which may be silent.

    Raises:
        InputError: it is empty, of an impossible rate, or not finite.
    """
    if not SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]:
        raise InputError(f"{name}: {rate} samples per second, needs {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]}")
    if not len(waveform):
        raise InputError(f"{name}: the sound is empty")
    if not np.isfinite(waveform).all():
        raise InputError(f"{name}: the sound holds numbers that are not finite")


def at_rate(waveform: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Gives a checked mono sound, float32 [samples], at the wanted rate."""
    return waveform if rate == sample_rate else polyphase(waveform, rate, sample_rate)


def polyphase(waveform: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resamples a mono sound with scipy's polyphase filter: float32 [samples] to [samples]."""
    common = math.gcd(rate, sample_rate)
    resampled = media_package("scipy.signal").resample_poly(waveform, sample_rate // common, rate // common)
    return resampled.astype(np.float32)


def check_samples(samples: int, name: str) -> None:
    """Refuses a sound of too many samples, all channels counted.

    Raises:
        InputError: it has more than :data:`MOST_SAMPLES`.
    """
    if samples > MOST_SAMPLES:
        raise InputError(f"{name}: the sound has {samples} samples, more than {MOST_SAMPLES}; cut it")


def check_whole(there: float, promised: float, name: str) -> None:
    """Refuses a file that ends before its header says: what it shows and sounds like may be in the part that is lost.

    Args:
        there: seconds that the file holds.
        promised: seconds that its header tells of.
        name: the file's name, for messages.

    Raises:
        InputError: more is missing than headers are inaccurate.
    """
    if promised - there > max(MOST_MISSING[0], MOST_MISSING[1] * promised):
        raise InputError(f"{name}: cut off: {max(0.0, there):.1f} s of {promised:.1f} s are there; get the file again")
