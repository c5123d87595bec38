import numpy as np
import pytest

from lightning_ss2a.perception.media.stretch import faded, loudest_stretch, rising


def test_the_loudest_stretch_is_found():
    waveform = np.random.default_rng(0).standard_normal(500) * np.linspace(0.1, 1, 500) ** 2
    energies = [float((waveform[start : start + 60] ** 2).sum()) for start in range(441)]
    expected = waveform[int(np.argmax(energies)) :][:60]
    np.testing.assert_array_equal(loudest_stretch(waveform, 60), expected)


@pytest.mark.parametrize("samples", [500, 700])
def test_a_sound_that_is_short_enough_stays(samples: int):
    waveform = np.ones(500, np.float32)
    assert loudest_stretch(waveform, samples) is waveform


def test_fades_begin_and_end_in_silence_and_leave_the_rest():
    result = faded(np.ones(1000, np.float32), 100)
    assert result[0] < 1e-3
    assert result[-1] < 1e-3
    assert (np.diff(result[:100]) > 0).all()
    assert (result[100:-100] == 1).all()
    np.testing.assert_array_equal(result, result[::-1])


def test_fades_of_a_very_short_sound_do_not_overlap():
    assert faded(np.ones(3, np.float32), 100).tolist() == pytest.approx([0.5, 1.0, 0.5])
    assert faded(np.ones(1, np.float32), 100).tolist() == [1.0]


def test_cross_fades_keep_the_power():
    ramp = rising(64)
    np.testing.assert_allclose(ramp**2 + ramp[::-1] ** 2, 1)
