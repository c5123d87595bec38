"""Prepares sounds for CLAP: 10 s at 48 kHz, and their log-mel spectrogram.

Sizes are those of LAION's ``HTSAT-tiny.json`` and ``HTSAT-base.json``. Of longer sounds LAION's code and transformers'
take 10 s at random; here it is always the first 10 s.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.waveform import polyphase
from lightning_ss2a.perception.packages import media_package

SAMPLE_RATE = 48_000
SECONDS = 10
SAMPLES = SAMPLE_RATE * SECONDS
WINDOW, HOP = 1024, 480
"""Samples."""
MEL_BANDS = 64
MEL_LOWEST, MEL_HIGHEST = 50.0, 14_000.0
"""Hz; transformers' own default starts at 0."""
LEAST_POWER = 1e-10
"""-100 dB."""


def prepare_sound(waveform: np.ndarray, sample_rate: int, peak: float | None) -> Tensor:
    """Makes 10 s at 48 kHz of a sound.

    Its first 10 s are taken; they are resampled with a polyphase filter; a shorter sound is repeated as often as it
    fits whole, and silence fills the rest.

    Args:
        waveform: float32 [samples].
        sample_rate: its samples per second.
        peak: bring the sound's mean to zero and its highest sample to this first; None: leave it as loud as it is.

    Returns:
        float32 [480000].

    Raises:
        InputError: it is empty.
    """
    if not len(waveform):
        raise InputError("the sound is empty")
    if peak is not None:
        waveform = waveform - waveform.mean()
        waveform = waveform * (peak / max(float(np.abs(waveform).max()), 1e-8))
    sound = waveform[: SECONDS * sample_rate]
    if sample_rate != SAMPLE_RATE:
        sound = polyphase(sound, sample_rate, SAMPLE_RATE)[:SAMPLES]
    sound = np.tile(sound, SAMPLES // len(sound))
    return torch.from_numpy(np.pad(sound, (0, SAMPLES - len(sound))).astype(np.float32))


def log_mel(sounds: Tensor) -> Tensor:
    """Computes spectrograms in dB, on the device of the sounds: float32 [sounds, 480000] to [sounds, 1, 1001, 64]."""
    window = torch.hann_window(WINDOW, device=sounds.device)
    spectrum = torch.stft(sounds, WINDOW, HOP, window=window, pad_mode="reflect", return_complex=True)
    power = spectrum.abs().square().transpose(1, 2) @ mel_matrix().to(sounds.device)  # [sounds, 1001, 64]
    return 10 * power.clamp(min=LEAST_POWER).log10()[:, None]


@cache
@torch.inference_mode(False)  # kept for all callers, whoever asks first
def mel_matrix() -> Tensor:
    """Computes each frequency's weight in each band, [513, 64]: triangles of equal area on Slaney's mel scale."""
    bank = media_package("transformers.audio_utils", extra="paper").mel_filter_bank(
        num_frequency_bins=WINDOW // 2 + 1,
        num_mel_filters=MEL_BANDS,
        min_frequency=MEL_LOWEST,
        max_frequency=MEL_HIGHEST,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(bank.astype(np.float32))
