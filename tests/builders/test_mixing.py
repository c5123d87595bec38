import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.builders.mixing import (
    CANVAS_SIDE,
    FRAME_TIMES,
    RMS,
    SHORTEST_ACTIVATION,
    VIDEO_SECONDS,
    Place,
    Source,
    active_sources,
    collage,
    draw_gains,
    draw_intervals,
    draw_places,
    draw_sources,
    fit_length,
    gate,
    loudest_source,
    mix,
    scene_parts,
    set_level,
    video_parts,
)
from tests.perception.media_files import plain_picture

seeds = st.integers(0, 2**32)
RATE = 1000
WHOLE = Place(0, 0, CANVAS_SIDE)


def source(gain: float = 0.0, window: float = 0.0, interval: tuple[float, float] | None = None) -> Source:
    return Source("pair", 0, gain, window, WHOLE, interval)


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt((waveform.astype(np.float64) ** 2).mean()))


# Sounds


def test_a_short_sound_is_repeated_from_its_beginning():
    assert fit_length(np.array([1, 2, 3]), 8, 0.7).tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert fit_length(np.array([1, 2, 3]), 3, 0.7).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("window", "expected"), [(0.0, [2, 3, 9]), (0.34, [3, 9, 4]), (0.99, [9, 4, 5]), (1.0, [9, 4, 5])]
)
def test_a_long_sound_is_cut_to_a_window_with_its_loudest_sample(window, expected):
    assert fit_length(np.array([1, 2, 3, 9, 4, 5, 6]), 3, window).tolist() == expected


def test_a_window_does_not_pass_the_ends_of_the_sound():
    assert fit_length(np.array([-9, 1, 2, 3]), 3, 0.9).tolist() == [-9, 1, 2]
    assert fit_length(np.array([1, 2, 3, 9]), 3, 0.1).tolist() == [2, 3, 9]


@pytest.mark.parametrize(("gain", "level"), [(0.0, 0.1), (-12.0, 0.1 * 10**-0.6), (-6.0, 0.0501187)])
def test_every_sound_is_brought_to_one_level_then_made_quieter_by_its_gain(gain, level):
    for waveform in (np.array([0.5, -0.5], np.float32), np.array([0, 0, 0, 1e-3], np.float32)):
        found = set_level(waveform, gain)
        assert found.dtype == np.float32
        assert rms(found) == pytest.approx(level, rel=1e-5)
        assert np.allclose(found / np.abs(found).max(), waveform / np.abs(waveform).max())


def test_a_gated_sound_fades_in_and_out_within_its_interval():
    gated = gate(np.ones(10, np.float32), start=3, samples=15, fade=4)
    assert gated.tolist() == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0]


def test_a_mix_is_the_sum_and_is_scaled_down_only_if_its_peak_passes_1():
    assert mix(np.array([[0.5, -0.2], [0.25, 0.1]])).tolist() == pytest.approx([0.75, -0.1])
    assert mix(np.array([[1.5, -0.5], [0.5, -0.5]])).tolist() == [1.0, -0.5]
    assert mix(np.array([[0.5, 0.5], [0.0, -2.5]])).tolist() == [0.25, -1.0]


def test_the_loudest_source_has_the_most_energy_not_the_highest_peak():
    assert loudest_source(np.array([[0.9, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0.4, 0.4, 0.4, 0.4]])) == 1


def test_a_scene_lasts_as_long_as_its_longest_sound():
    sounds = [np.full(700, 0.3, np.float32), np.array([0.5, -0.5], np.float32)]
    parts = scene_parts(sounds, [source(-3.0), source()], RATE)
    assert parts.shape == (2, 700)
    np.testing.assert_allclose(parts[0], 0.1 * 10 ** (-3 / 20), rtol=1e-5)
    np.testing.assert_allclose(parts[1], np.tile([0.1, -0.1], 350), rtol=1e-5)


def test_a_scene_lasts_ten_seconds_at_most():
    long = np.zeros(25_000, np.float32)
    long[20_000] = 0.5
    parts = scene_parts([long, np.ones(10, np.float32)], [source(), source()], RATE)
    assert parts.shape == (2, 10_000)
    assert np.flatnonzero(parts[0]).size == 1  # the loudest sample is in the window
    assert rms(parts[0]) == pytest.approx(RMS, rel=1e-5)


def test_sources_of_a_video_are_heard_in_their_interval_only():
    sounds = [np.ones(3, np.float32), np.linspace(0.1, 1, 30_000, dtype=np.float32)]
    parts = video_parts(sounds, [source(-6.0, interval=(1.5, 4.0)), source(interval=(0.0, 10.0))], RATE)
    assert parts.shape == (2, 10_000)
    heard = np.flatnonzero(parts[0])
    assert (heard[0], heard[-1]) == (1501, 3998)  # the first and last samples of a fade are silent
    np.testing.assert_allclose(parts[0, 1510:3990], 0.1 * 10 ** (-6 / 20), rtol=1e-5)
    np.testing.assert_allclose(parts[0, 1500:1510], parts[0, 2000] * np.arange(10) / 10, rtol=1e-5)
    assert rms(parts[1]) == pytest.approx(RMS, rel=2e-3)  # set before the fades


def test_a_sound_begins_when_its_source_appears():
    click = np.zeros(2000, np.float32)
    click[100] = 1
    (part,) = video_parts([click], [source(interval=(3.0, 6.0))], RATE)
    assert np.flatnonzero(part).tolist() == [3100, 5100]


# Draws


@settings(max_examples=60, deadline=None)
@given(sources=st.integers(1, 9), seed=seeds)
def test_gains_reach_from_minus_12_to_0_and_one_is_0(sources, seed):
    gains = draw_gains(sources, np.random.default_rng(seed))
    assert len(gains) == sources
    assert all(-12 <= gain <= 0 for gain in gains)
    assert 0.0 in gains
    assert all(round(gain, 2) == gain for gain in gains)  # so that the list says exactly what was done


def test_gains_are_spread_over_their_range_and_any_source_can_be_the_loudest():
    gains = np.array([draw_gains(3, np.random.default_rng(seed)) for seed in range(2000)])
    full = gains == 0.0
    np.testing.assert_allclose(full.mean(axis=0), 1 / 3, atol=0.05)
    counts, _ = np.histogram(gains[~full], bins=6, range=(-12, 0))
    np.testing.assert_allclose(counts / counts.sum(), 1 / 6, atol=0.02)


@settings(max_examples=100, deadline=None)
@given(sources=st.integers(1, 6), seed=seeds)
def test_intervals_last_two_seconds_and_leave_no_time_without_a_source(sources, seed):
    intervals = draw_intervals(sources, np.random.default_rng(seed))
    assert len(intervals) == sources
    for start, stop in intervals:
        assert 0 <= start < stop <= VIDEO_SECONDS
        assert stop - start >= SHORTEST_ACTIVATION - 1e-9
        assert (round(start, 3), round(stop, 3)) == (start, stop)
    times = np.linspace(0, VIDEO_SECONDS, 997, endpoint=False)
    assert active_sources(intervals, times).any(axis=1).all()
    assert active_sources(intervals, FRAME_TIMES).any(axis=0).all()


class Fixed:
    """A source of chance whose answers are given."""

    def __init__(self, lengths: list[float], starts: list[float]) -> None:
        self.lengths, self.starts = np.array(lengths), np.array(starts)

    def uniform(self, low, high, size):
        return self.lengths

    def random(self, size):
        return self.starts / (VIDEO_SECONDS - self.lengths)


def test_gaps_are_closed_by_the_source_that_comes_next_and_the_end_by_the_last():
    # 1..3, 2.5..4.5 | gap | 6..8 | the end
    assert draw_intervals(3, Fixed([2, 2, 2], [6, 1, 2.5])) == [(4.5, 10.0), (0.0, 3.0), (2.5, 4.5)]
    # The second lies within the first, which alone stays to the end.
    assert draw_intervals(2, Fixed([6, 2], [2, 3])) == [(0.0, 10.0), (3.0, 5.0)]
    assert draw_intervals(1, Fixed([2], [5])) == [(0.0, 10.0)]


def test_a_source_is_there_from_its_start_until_before_its_stop():
    times = np.array([0.0, 1.0, 2.0, 3.0])
    found = active_sources([(0.0, 2.0), (1.0, 10.0)], times)
    assert found.tolist() == [[True, False], [True, True], [False, True], [False, True]]


def test_frames_are_64_in_ten_seconds():
    assert FRAME_TIMES.tolist() == [i * 10 / 64 for i in range(64)]


def test_one_picture_has_the_whole_canvas():
    assert draw_places(1, np.random.default_rng(0)) == [Place(0, 0, CANVAS_SIDE)]


@settings(max_examples=60, deadline=None)
@given(sources=st.integers(2, 10), seed=seeds)
def test_several_pictures_have_a_cell_each(sources, seed):
    places = draw_places(sources, np.random.default_rng(seed))
    cell = CANVAS_SIDE // math.ceil(math.sqrt(sources))
    cells = {(place.left // cell, place.top // cell) for place in places}
    assert len(cells) == len(places) == sources
    for place in places:
        assert round(0.6 * cell) <= place.side <= cell
        assert (place.left + place.side - 1) // cell == place.left // cell
        assert (place.top + place.side - 1) // cell == place.top // cell < CANVAS_SIDE // cell


def test_drawn_sources_are_of_different_groups_and_use_all_numbers_views_and_rows():
    groups = [["a1", "a2"], ["b"], ["c"], ["d"], ["e1", "e2", "e3"]]
    drawn = [draw_sources(groups, 3, 4, False, np.random.default_rng(seed)) for seed in range(400)]
    for sources in drawn:
        letters = [source.row[0] for source in sources]
        assert len(set(letters)) == len(letters)
        assert all(source.interval is None for source in sources)
    counts = np.bincount([len(sources) for sources in drawn], minlength=5)
    assert counts[0] == 0
    assert (counts[1:] > 70).all()
    every = [source for sources in drawn for source in sources]
    assert {source.row for source in every} == {row for group in groups for row in group}
    assert {source.view for source in every} == {0, 1, 2}
    assert all(0 <= source.window < 1 for source in every)


def test_the_same_chance_draws_the_same_sources():
    groups = [[0], [1], [2]]
    first, again = (draw_sources(groups, 8, 3, True, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    assert all(source.interval for source in first)


# Pictures


def test_a_collage_is_pictures_at_their_places_on_white():
    red, blue = plain_picture((255, 0, 0), side=8), plain_picture((0, 0, 255), side=700)
    canvas = collage([red, blue], [Place(0, 10, 100), Place(300, 256, 212)])
    assert canvas.shape == (CANVAS_SIDE, CANVAS_SIDE, 3)
    assert canvas.dtype == np.uint8
    assert (canvas[10:110, :100] == [255, 0, 0]).all()
    assert (canvas[256:468, 300:] == [0, 0, 255]).all()
    canvas[10:110, :100] = canvas[256:468, 300:] = 255
    assert (canvas == 255).all()


def test_one_picture_fills_the_canvas():
    assert (collage([plain_picture((1, 2, 3))], [WHOLE]) == [1, 2, 3]).all()
