"""Lengths are exact, joints make no click, and the seed alone decides where sounds lie."""

import numpy as np
import pytest

from lightning_ss2a.generation.sound_bank.arranging import arranged, is_sustained, repeated, with_rests
from lightning_ss2a.perception.media.stretch import faded
from tests.bank_examples import noise
from tests.perception.media_files import sine

RATE = 16_000


def steepest(waveform: np.ndarray) -> float:
    return float(np.abs(np.diff(waveform)).max())


def bark(seconds: float = 0.4) -> np.ndarray:
    decay = np.exp(-np.arange(round(seconds * RATE)) / (0.08 * RATE))
    return (noise(seconds) * decay).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.01, 0.39, 1.0, 2.5, 7.77])
@pytest.mark.parametrize("sound", [bark(), sine(300, 3.0), noise(2.1), bark(6.0), noise(0.001)], ids=len)
def test_the_length_is_exact_and_the_ends_are_silent(sound: np.ndarray, seconds: float):
    samples = round(seconds * RATE)
    result, _ = arranged(sound, samples, RATE, np.random.default_rng(0))
    assert result.shape == (samples,)
    assert result.dtype == np.float32
    assert np.abs(result[[0, -1]]).max() < 0.01
    assert np.abs(result).max() > 0


@pytest.mark.parametrize(
    ("sound", "what"),
    [(noise(8.0), "cut"), (noise(5.0), "whole"), (noise(3.0), "repeated"), (bark(), "with rests")],
    ids=["longer", "as long", "sustained", "event"],
)
def test_what_is_done_depends_on_the_sound(sound: np.ndarray, what: str):
    assert arranged(sound, 5 * RATE, RATE, np.random.default_rng(0))[1] == what


def test_what_dies_away_or_is_short_is_no_sustained_sound():
    assert is_sustained(noise(3.0), RATE)
    assert not is_sustained(noise(1.0), RATE)
    assert not is_sustained(noise(3.0) * np.linspace(1, 0, 3 * RATE) ** 2, RATE)
    assert not is_sustained(np.concatenate([np.zeros(RATE), noise(3.0)]), RATE)


@pytest.mark.parametrize("frequency", [100.0, 441.3, 2000.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_joint_is_steeper_than_the_sound(frequency: float, seed: int):
    sound = sine(frequency, 2.37)
    result, _ = arranged(sound, 10 * RATE, RATE, np.random.default_rng(seed))
    # Where a tone meets itself in phase, equal power adds up to the square root of two.
    assert steepest(result) <= 2**0.5 * steepest(sound) * 1.01


def test_a_joint_of_noise_is_as_loud_as_the_rest():
    sound = noise(3.0)
    result = repeated(sound, 30 * RATE, RATE, np.random.default_rng(0))
    levels = [float(np.sqrt(np.mean(part**2))) for part in np.split(result, 300)]
    whole = float(np.sqrt(np.mean(sound**2)))
    assert min(levels) > 0.8 * whole
    assert max(levels) < 1.2 * whole


def test_an_event_is_placed_whole_with_rests_between():
    event = faded(bark(), 160)
    result = with_rests(event, 5 * RATE, RATE, np.random.default_rng(3))
    starts = [i for i in range(len(result) - len(event) + 1) if np.array_equal(result[i : i + len(event)], event)]
    assert len(starts) == 6  # of 0.4 s, with rests of 0.3 s at least on average
    assert min(np.diff(starts)) >= len(event)
    assert float(np.sum(result**2)) == pytest.approx(6 * float(np.sum(event**2)), rel=1e-5)


def test_an_event_as_long_as_the_time_stays_whole():
    event = bark(1.0)
    np.testing.assert_array_equal(with_rests(event, len(event), RATE, np.random.default_rng(0)), event)


@pytest.mark.parametrize("sound", [bark(), noise(3.0)], ids=["event", "sustained"])
def test_the_seed_decides(sound: np.ndarray):
    first, again, other = (arranged(sound, 5 * RATE, RATE, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
