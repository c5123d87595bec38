import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.perception.media.views import _recolour, audio_views, image_views

RATE = 1000
seeds = st.integers(0, 2**32)


def make_image(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(side=st.integers(1, 80), views=st.integers(1, 5), seed=seeds)
def test_picture_views_are_square_crops_of_at_least_half_the_area(side, views, seed):
    image = make_image(side)
    found = image_views(image, views, np.random.default_rng(seed))
    assert len(found) == views
    assert found[0] is image
    for view in found:
        assert view.dtype == np.uint8
        assert view.shape == (len(view), len(view), 3)
        assert max(1, round(side * 0.5**0.5)) <= len(view) <= side


def test_a_crop_without_recolouring_is_a_part_of_the_picture_or_its_mirror(monkeypatch):
    monkeypatch.setattr("lightning_ss2a.perception.media.views._recolour", lambda pixels, generator: pixels)
    image = make_image(20)
    windows = {
        flipped[top : top + side, left : left + side].tobytes()
        for flipped in (image, image[:, ::-1])
        for side in range(14, 21)
        for top in range(21 - side)
        for left in range(21 - side)
    }
    views = image_views(image, 60, np.random.default_rng(0))[1:]
    assert all(view.tobytes() in windows for view in views)
    assert len({view.tobytes() for view in views}) > 30


def test_recolouring_is_brightness_then_contrast_then_saturation():
    class Chosen:
        def uniform(self, low, high, size):
            assert (low, high, size) == (0.8, 1.2, 3)
            return np.array([1.1, 0.8, 1.2])

    image = make_image(6)
    expected = np.zeros(image.shape)
    bright = image * 1.1
    mean = (bright @ [0.299, 0.587, 0.114]).mean()
    for i, j in np.ndindex(6, 6):
        pixel = mean + (bright[i, j] - mean) * 0.8
        grey = pixel @ [0.299, 0.587, 0.114]
        expected[i, j] = np.clip(grey + (pixel - grey) * 1.2, 0, 255)
    assert np.abs(_recolour(image, Chosen()) - expected).max() <= 0.51  # rounded to whole numbers


def test_black_stays_black_and_no_colour_overflows():
    for view in image_views(np.zeros((9, 9, 3), np.uint8), 10, np.random.default_rng(0)):
        assert not view.any()
    for view in image_views(np.full((9, 9, 3), 255, np.uint8), 20, np.random.default_rng(0)):
        assert view.min() >= 255 * 0.8 - 1


@settings(max_examples=80, deadline=None)
@given(samples=st.integers(1, 5 * RATE), views=st.integers(1, 6), peak=st.floats(0.01, 1), seed=seeds)
def test_sound_views_are_whole_or_at_least_half_a_sound_and_keep_its_loudest_sample(samples, views, peak, seed):
    noise = np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)
    waveform = noise * np.float32(peak) / np.abs(noise).max()
    found = audio_views(waveform, RATE, views, np.random.default_rng(seed))
    assert len(found) == views
    assert found[0] is waveform
    for view in found[1:]:
        assert view.dtype == np.float32
        assert max(RATE, round(samples / 2)) <= len(view) <= max(RATE, samples)
        loudest = float(np.abs(view).max())
        assert loudest <= 1 + 1e-6
        # The loudest sample is in every view, changed by at most 6 dB.
        assert 10 ** (-6 / 20) - 1e-4 <= loudest / np.abs(waveform).max() <= 10 ** (6 / 20) + 1e-4


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(1, RATE), seed=seeds)
def test_a_short_sound_is_moved_whole_within_a_second_of_silence(samples, seed):
    waveform = np.random.default_rng(seed).uniform(0.1, 0.3, samples).astype(np.float32)
    (_, view) = audio_views(waveform, RATE, 2, np.random.default_rng(seed))
    assert len(view) == RATE
    (heard,) = np.nonzero(view)
    assert len(heard) == samples
    assert heard[-1] - heard[0] == samples - 1
    ratio = view[heard] / waveform
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(RATE + 1, 4 * RATE), seed=seeds)
def test_a_segment_is_a_stretch_of_the_sound_times_one_gain(samples, seed):
    waveform = np.random.default_rng(seed).uniform(-0.4, 0.4, samples).astype(np.float32)
    (_, view) = audio_views(waveform, RATE, 2, np.random.default_rng(seed))
    correlation = np.correlate(waveform.astype(np.float64), view.astype(np.float64), "valid")
    part = waveform[correlation.argmax() :][: len(view)]
    gain = float(view @ part / (part @ part))
    np.testing.assert_allclose(view, gain * part, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(RATE + 1, 5 * RATE), place=st.floats(0, 1), seed=seeds)
def test_a_click_is_in_every_segment_wherever_it_is(samples, place, seed):
    waveform = np.full(samples, 1e-3, np.float32)
    waveform[int(place * (samples - 1))] = 0.5
    for view in audio_views(waveform, RATE, 6, np.random.default_rng(seed)):
        assert view.max() >= 0.5 * 10 ** (-6 / 20) - 1e-4


def test_a_sound_that_is_already_clipped_gets_no_louder():
    waveform = np.array([1.5, -1.5] * RATE, np.float32)
    for view in audio_views(waveform, RATE, 20, np.random.default_rng(0)):
        assert np.abs(view).max() <= 1.5


def test_equal_seeds_give_equal_views_and_other_seeds_others():
    image, waveform = make_image(30), np.random.default_rng(0).uniform(-1, 1, 3 * RATE).astype(np.float32)

    def views(seed):
        generator = np.random.default_rng(seed)
        return [*image_views(image, 4, generator), *audio_views(waveform, RATE, 4, generator)]

    assert all(np.array_equal(a, b) for a, b in zip(views(5), views(5), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(views(5), views(6), strict=True))


def test_the_first_views_do_not_depend_on_how_many_are_asked_for():
    image = make_image(30)
    few, many = (image_views(image, count, np.random.default_rng(0)) for count in (3, 6))
    assert all(np.array_equal(a, b) for a, b in zip(few, many, strict=False))
