"""Cuts a waveform into patches of a log-mel spectrogram: the front end of YAMNet, and of VGGish with other constants.

The constants and the order of steps are those of ``features.py`` in tensorflow/models (research/audioset/yamnet): a
periodic Hann window over 25 ms every 10 ms, the *magnitude* of a 512-point FFT, 64 triangles that are straight lines on
the HTK mel scale, and log(mel + 0.001).
"""

from functools import cache

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
WINDOW = 400
"""Samples: 25 ms."""
HOP = 160
"""Samples: 10 ms."""
FFT = 512
MEL_BANDS = 64
MEL_LOWEST, MEL_HIGHEST = 125.0, 7500.0
"""Hz."""
LOG_OFFSET = 0.001
PATCH_FRAMES = 96
PATCH_HOP_FRAMES = 48
PATCH_SAMPLES = WINDOW + HOP * (PATCH_FRAMES - 1)
"""Samples of one patch: 0.975 s."""


def log_mel_patches(waveform: Tensor, hop_frames: int = PATCH_HOP_FRAMES, log_offset: float = LOG_OFFSET) -> Tensor:
    """Cuts a waveform into log-mel patches of 0.96 s, every 0.48 s.

    A sound shorter than a patch is followed by silence: as a waveform, since a zero in the log-mel spectrogram would be
    loud. What is left after the last whole patch (less than ``hop_frames``) is not heard.

    Args:
        waveform: [samples], 16 kHz, within -1 to 1.
        hop_frames: from the start of a patch to that of the next, in frames of 10 ms.
        log_offset: added before the logarithm.

    Returns:
        [patches, 96, 64]; at least one patch.
    """
    missing = max(0, PATCH_SAMPLES - len(waveform))
    padded = torch.nn.functional.pad(waveform, (0, missing))
    spectrogram = log_mel_spectrogram(padded, log_offset)  # [frames, 64]
    return spectrogram.unfold(0, PATCH_FRAMES, hop_frames).transpose(1, 2).contiguous()  # [patches, 96, 64]


def log_mel_spectrogram(waveform: Tensor, log_offset: float = LOG_OFFSET) -> Tensor:
    """Computes a log-mel spectrogram without padding: [samples] to [1 + (samples - 400) // 160, 64]."""
    frames = waveform.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW, periodic=True)  # [frames, 400]
    magnitude = torch.fft.rfft(frames, FFT).abs()  # [frames, 257]
    return torch.log(magnitude @ mel_matrix() + log_offset)


@cache
@torch.inference_mode(False)  # kept for callers that differentiate, whoever asks first
def mel_matrix() -> Tensor:
    """Computes each frequency's weight in each band, [257, 64]: triangles on the mel scale, as in TensorFlow."""
    bins = _mel(torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    lowest, highest = _mel(torch.tensor([MEL_LOWEST, MEL_HIGHEST], dtype=torch.float64)).tolist()
    edges = torch.linspace(lowest, highest, MEL_BANDS + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


def _mel(frequency: Tensor) -> Tensor:
    """Converts Hz to HTK's mel."""
    return 1127 * torch.log1p(frequency / 700)
