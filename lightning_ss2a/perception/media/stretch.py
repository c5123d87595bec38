"""Cuts sounds where it is heard least: at their loudest stretch, faded at both ends."""

import numpy as np

FADE_SECONDS = 0.01
"""Of an end that is cut: long enough for no click, too short to be heard as a fade."""


def loudest_stretch(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Cuts out the stretch with the most energy, the first of several; a shorter sound stays whole.

    Args:
        waveform: [any number].
        samples: how long it becomes, at most.

    Returns:
        [samples] or fewer.
    """
    if len(waveform) <= samples:
        return waveform
    energy = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    start = int((energy[samples:] - energy[:-samples]).argmax())
    return waveform[start : start + samples]


def faded(waveform: np.ndarray, fade: int) -> np.ndarray:
    """Fades a sound in and out along half a cosine, so that it begins and ends in silence without a click.

    Args:
        waveform: float32 [samples].
        fade: samples of each fade; at most half of the sound is faded at either end.

    Returns:
        float32 [samples], a copy.
    """
    result = waveform.astype(np.float32)
    fade = min(fade, len(result) // 2)
    ramp = rising(fade).astype(np.float32) ** 2
    result[:fade] *= ramp
    result[len(result) - fade :] *= ramp[::-1]
    return result


def rising(samples: int) -> np.ndarray:
    """Gives a quarter of a sine from 0 up to 1, both left out: float64 [samples]; with its mirror, squares sum to 1."""
    return np.sin((np.arange(samples) + 0.5) / max(samples, 1) * np.pi / 2)
