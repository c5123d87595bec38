"""Writes sounds as 16-bit wav files that say what they are, at the wanted loudness and never clipped silently."""

import io
import math
from dataclasses import dataclass

import numpy as np

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.loudness import loudness as measured_loudness
from lightning_ss2a.perception.packages import media_package

HIGHEST_PEAK = 32766 / 32768
"""What a sound that would be louder is scaled to: 16 bits hold it, rounded either way."""


@dataclass(frozen=True)
class Level:
    """How loud a sound has become.

    Attributes:
        gain: by which it was multiplied, in dB.
        peak: its largest sample, within 0 to 1.
        loudness: integrated, in LUFS (ITU-R BS.1770-4); None: not asked for, or too quiet to have one.
        note: what a listener should know; empty: nothing.
    """

    gain: float
    peak: float
    loudness: float | None = None
    note: str = ""


def levelled(waveform: np.ndarray, sample_rate: int, loudness: float | None) -> tuple[np.ndarray, Level]:
    """Brings a sound to a loudness; what would be clipped is made quieter as a whole, and that is told.

    Args:
        waveform: mono, float32 [samples], of any size.
        sample_rate: samples per second.
        loudness: wanted, in LUFS; None: as it is.

    Raises:
        InputError: it is empty, silent or not finite.
    """
    if not len(waveform) or not np.isfinite(waveform).all() or not np.abs(waveform).max() > 0:
        raise InputError("the sound that was made is empty, silent or not finite")
    gain, note = 1.0, ""
    if loudness is not None:
        measured = measured_loudness(waveform, sample_rate)
        if not math.isfinite(measured):
            note = "too quiet to have a loudness; left as it was"
        else:
            gain = 10 ** ((loudness - measured) / 20)
    peak = gain * float(np.abs(waveform).max())
    if peak > HIGHEST_PEAK:
        note = f"made {20 * math.log10(peak / HIGHEST_PEAK):.1f} dB quieter, so that it is not clipped"
        gain *= HIGHEST_PEAK / peak
    result = (waveform * gain).astype(np.float32)
    reached = math.nan if loudness is None else measured_loudness(result, sample_rate)
    return result, Level(
        round(20 * math.log10(gain), 2),
        round(float(np.abs(result).max()), 4),
        round(reached, 2) if math.isfinite(reached) else None,
        note,
    )


def wav_bytes(waveform: np.ndarray, sample_rate: int, title: str, comment: str, software: str) -> bytes:
    """Makes a wav file of 16 bits, with a LIST chunk: INAM, ICMT and ISFT.

    Args:
        waveform: mono, float32 [samples], within -1 to 1.
        sample_rate: samples per second.
        title: of the sound.
        comment: how it was made.
        software: by what.
    """
    soundfile = media_package("soundfile")
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", sample_rate, 1, "PCM_16", format="WAV") as file:
        file.title, file.comment, file.software = title, comment, software
        file.write(waveform)
    return content.getvalue()
