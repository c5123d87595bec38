"""Measures how loud a sound is, as people hear it: ITU-R BS.1770-4, by pyloudnorm."""

import math
import warnings

import numpy as np

from lightning_ss2a.perception.packages import media_package

BLOCK_SECONDS = 0.4
"""Of the standard; a shorter sound is one block."""


def loudness(waveform: np.ndarray, sample_rate: int) -> float:
    """Measures the integrated loudness of a mono sound; silence between its parts does not count (gating).

    Args:
        waveform: float32 [samples], at least one.
        sample_rate: samples per second.

    Returns:
        LUFS; minus infinity of a sound with no block above -70 LUFS.
    """
    seconds = len(waveform) / sample_rate
    meter = media_package("pyloudnorm").Meter(sample_rate, block_size=min(BLOCK_SECONDS, seconds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means of no blocks: silence
        measured = float(meter.integrated_loudness(waveform.astype(np.float64)))
    return -math.inf if math.isnan(measured) else measured


def at_loudness(waveform: np.ndarray, sample_rate: int, wanted: float) -> np.ndarray:
    """Makes a sound louder or quieter until it has the wanted loudness; its peak may then pass 1.

    Args:
        waveform: float32 [samples], of any level.
        sample_rate: samples per second.
        wanted: LUFS.

    Returns:
        float32 [samples].

    Raises:
        ValueError: it is silent, or all of it is too low to be heard.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    # Of a faint sound all blocks lie below the gate; its level alone is no reason to refuse it.
    measured = loudness(waveform / peak, sample_rate) if peak else -math.inf
    if not math.isfinite(measured):
        raise ValueError("nothing in it can be heard")
    return (waveform * (10 ** ((wanted - measured) / 20) / peak)).astype(np.float32)
