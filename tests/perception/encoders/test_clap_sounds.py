import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.encoders.clap_sounds import SAMPLES, log_mel, mel_matrix, prepare_sound


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).uniform(-0.5, 0.5, samples).astype(np.float32)


def test_spectrograms_are_those_of_transformers_with_laions_settings():
    transformers = pytest.importorskip("transformers")
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    sounds = [noise(100_000), noise(480_000), noise(480_000) * np.float32(1e-3)]
    sounds[1][200_000:] = 0  # down to the lowest power
    expected = extractor(sounds, sampling_rate=48_000, return_tensors="pt")["input_features"]
    features = log_mel(torch.stack([prepare_sound(sound, 48_000, None) for sound in sounds]))
    assert features.shape == (3, 1, 1001, 64)
    torch.testing.assert_close(features, expected.float(), rtol=0, atol=2e-3)  # dB


def test_mel_bands_are_those_of_librosa():
    pytest.importorskip("transformers")
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=48_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000).T
    torch.testing.assert_close(mel_matrix(), torch.from_numpy(expected), rtol=1e-5, atol=1e-8)


def test_a_short_sound_is_repeated_whole_and_followed_by_silence():
    sound = noise(200_000)
    expected = np.concatenate([sound, sound, np.zeros(80_000, np.float32)])
    assert np.array_equal(prepare_sound(sound, 48_000, None).numpy(), expected)


def test_of_a_long_sound_the_first_ten_seconds_are_taken():
    sound = noise(700_000)
    assert np.array_equal(prepare_sound(sound, 48_000, None).numpy(), sound[:SAMPLES])


def test_another_rate_is_resampled():
    time = np.arange(163_840) / 16_000  # 10.24 s, AudioLDM's length
    sound = prepare_sound(np.sin(2 * np.pi * 500 * time), 16_000, None)
    expected = torch.from_numpy(np.sin(2 * np.pi * 500 * np.arange(SAMPLES) / 48_000).astype(np.float32))
    assert sound.shape == (SAMPLES,)
    torch.testing.assert_close(sound[2000:-2000], expected[2000:-2000], rtol=0, atol=2e-3)


def test_level_is_set_before_the_crop():
    sound = np.concatenate([np.full(480_000, 0.1), np.full(480_000, 0.3)]).astype(np.float32)  # mean 0.2
    torch.testing.assert_close(prepare_sound(sound, 48_000, 0.5), torch.full((SAMPLES,), -0.5))
    assert prepare_sound(np.zeros(10, np.float32), 48_000, 0.5).isfinite().all()


def test_an_empty_sound_is_refused():
    with pytest.raises(InputError, match="the sound is empty"):
        prepare_sound(np.empty(0, np.float32), 48_000, None)
