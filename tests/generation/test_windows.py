"""Windows of a video, and their cross-fades."""

import math

import numpy as np
import pytest

from lightning_ss2a.generation.windows import Window, join, of_length, windows_of

RATE = 1000


@pytest.mark.parametrize("total", [0.5, 10.24])
def test_what_is_no_longer_than_a_window_is_one(total: float):
    assert windows_of(total, 10.24, 1.0) == [Window(0.0, total)]


@pytest.mark.parametrize(("total", "count"), [(10.25, 2), (19.0, 2), (19.48, 2), (19.5, 3), (60.0, 7)])
def test_windows_cover_everything_and_overlap_enough(total: float, count: int):
    windows = windows_of(total, 10.24, 1.0)
    assert len(windows) == count == math.ceil((total - 1.0) / 9.24)
    assert windows[0].start == 0
    assert windows[-1].end == pytest.approx(total)
    steps = np.diff([window.start for window in windows])
    np.testing.assert_allclose(steps, steps[0])
    assert 10.24 - steps[0] >= 1.0 - 1e-9


def test_windows_without_overlap_follow_each_other():
    assert [(w.start, w.end) for w in windows_of(30.0, 10.0, 0.0)] == [(0, 10), (10, 20), (20, 30)]


def test_crossfades_keep_the_power_of_sounds_that_have_nothing_in_common():
    windows = [Window(0.0, 4.0), Window(2.5, 4.0), Window(5.0, 4.0)]
    random = np.random.default_rng(0)
    power = np.mean(
        [join(random.normal(size=(3, 4 * RATE)).astype(np.float32), windows, RATE) ** 2 for _ in range(200)], axis=0
    )
    assert len(power) == 9 * RATE
    blocks = power.reshape(-1, 250).mean(1)
    np.testing.assert_allclose(blocks, 1.0, atol=0.03)


@pytest.mark.parametrize(("total", "overlap"), [(15.1, 5.0), (19.1, 1.0), (10.3, 1.0), (20.2, 0.0)])
def test_power_stays_where_a_window_overlaps_the_one_after_the_next(total: float, overlap: float):
    windows = windows_of(total, 10.0, overlap)
    power = np.zeros(round(total * 100))
    for number in range(len(windows)):  # of sounds that have nothing in common, powers add up
        sounds = [np.full(1000, float(number == own), np.float32) for own in range(len(windows))]
        power += join(sounds, windows, 100).astype(float)[: len(power)] ** 2
    np.testing.assert_allclose(power, 1.0, atol=1e-5)


def test_outside_the_overlaps_nothing_changes():
    sounds = [np.full(4 * RATE, value, np.float32) for value in (1.0, 2.0)]
    joined = join(sounds, [Window(0.0, 4.0), Window(3.0, 4.0)], RATE)
    np.testing.assert_array_equal(joined[: 3 * RATE], 1.0)
    np.testing.assert_array_equal(joined[4 * RATE :], 2.0)
    middle = joined[3 * RATE + RATE // 2]  # cos = sin = sqrt(1/2)
    assert middle == pytest.approx(3 * math.sqrt(0.5), rel=1e-2)


def test_a_sound_is_cut_or_ends_in_silence():
    sound = np.arange(1, 5, dtype=np.float32)
    assert of_length(sound, 3).tolist() == [1, 2, 3]
    assert of_length(sound, 6).tolist() == [1, 2, 3, 4, 0, 0]
