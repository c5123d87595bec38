import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.perception.encoders.log_mel import PATCH_SAMPLES, log_mel_patches, log_mel_spectrogram, mel_matrix


def reference_mel_matrix() -> np.ndarray:
    """tf.signal.linear_to_mel_weight_matrix, written after its documentation: 64 HTK triangles, 125 to 7500 Hz."""

    def mel(hertz):
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    bins = mel(np.arange(257) * 16_000 / 512)
    edges = np.linspace(mel(125), mel(7500), 66)
    weights = np.zeros((257, 64))
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        for k in range(1, 257):
            weights[k, band] = max(0, min((bins[k] - low) / (centre - low), (high - bins[k]) / (high - centre)))
    return weights


def reference_log_mel(waveform: np.ndarray) -> np.ndarray:
    """features.py of tensorflow/models (research/audioset/yamnet) in float64, frame by frame."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)  # periodic
    frames = [waveform[start : start + 400] * window for start in range(0, len(waveform) - 399, 160)]
    magnitude = np.abs(np.fft.rfft(np.array(frames), 512))
    return np.log(magnitude @ reference_mel_matrix() + 0.001)


def test_mel_matrix_equals_tensorflows_formula():
    np.testing.assert_allclose(mel_matrix().numpy(), reference_mel_matrix(), atol=1e-5)


def test_the_constant_part_of_a_sound_is_not_heard():
    assert not mel_matrix()[0].any()


def test_spectrogram_equals_yamnets_features():
    rng = np.random.default_rng(0)
    waveform = 0.3 * rng.standard_normal(16_000) + 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    found = log_mel_spectrogram(torch.from_numpy(waveform).float()).numpy()
    expected = reference_log_mel(waveform)
    assert found.shape == expected.shape == (98, 64)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 4000.0])
def test_a_sine_is_loudest_in_the_band_around_its_frequency(frequency):
    waveform = torch.sin(2 * torch.pi * frequency * torch.arange(16_000) / 16_000)
    loudest = log_mel_spectrogram(waveform).mean(dim=0).argmax()
    centres = 700 * (10 ** (np.linspace(*2595 * np.log10(1 + np.array([125, 7500]) / 700), 66)[1:-1] / 2595) - 1)
    spacing = centres[1:] - centres[:-1]
    assert abs(centres[loudest] - frequency) <= max(spacing[min(int(loudest), 62)], 16_000 / 512)


def test_patches_are_windows_of_the_spectrogram():
    waveform = np.random.default_rng(1).standard_normal(40_000) * 0.1
    spectrogram = reference_log_mel(waveform)  # 248 frames
    patches = log_mel_patches(torch.from_numpy(waveform).float()).numpy()
    assert patches.shape == ((248 - 96) // 48 + 1, 96, 64)
    for number, patch in enumerate(patches):
        np.testing.assert_allclose(patch, spectrogram[48 * number : 48 * number + 96], atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(0, 50_000))
def test_number_of_patches(samples):
    frames = max(96, 1 + (samples - 400) // 160)
    assert len(log_mel_patches(torch.zeros(samples))) == 1 + (frames - 96) // 48


def test_a_short_sound_is_followed_by_silence_not_by_zeros_of_the_spectrogram():
    waveform = 0.5 * np.random.default_rng(2).standard_normal(3000)
    (patch,) = log_mel_patches(torch.from_numpy(waveform).float()).numpy()
    padded = np.concatenate([waveform, np.zeros(int(0.975 * 16_000) - 3000)])
    np.testing.assert_allclose(patch, reference_log_mel(padded), atol=2e-4)
    np.testing.assert_allclose(patch[-1], np.log(0.001), rtol=1e-6)  # silence, far below zero


def test_a_patch_has_975_milliseconds():
    assert PATCH_SAMPLES == 15_600
    assert len(log_mel_patches(torch.zeros(15_600))) == 1


def test_gradients_pass_even_if_an_encoder_in_inference_mode_asked_first():
    mel_matrix.cache_clear()
    with torch.inference_mode():
        log_mel_spectrogram(torch.randn(400))
    waveform = torch.randn(800, requires_grad=True)
    log_mel_spectrogram(waveform).sum().backward()
    assert waveform.grad.abs().sum() > 0
