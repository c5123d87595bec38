import math

import numpy as np
import pytest

from lightning_ss2a.perception.media.loudness import at_loudness, loudness
from tests.perception.media_files import sine


def test_a_full_scale_tone_has_the_loudness_that_the_standard_gives():
    # BS.1770: a 997 Hz sine at 0 dB of full scale in one channel is -3.01 LUFS.
    assert loudness(sine(997, 4.0, 48_000, peak=1.0), 48_000) == pytest.approx(-3.01, abs=0.05)


def test_silence_between_events_does_not_count():
    tone = sine(1000, 2.0)
    assert loudness(np.concatenate([tone, np.zeros(80_000, np.float32)]), 16_000) == pytest.approx(
        loudness(tone, 16_000), abs=0.5
    )


def test_a_sound_shorter_than_a_block_is_one_block():
    assert loudness(sine(1000, 0.1), 16_000) == pytest.approx(loudness(sine(1000, 2.0), 16_000), abs=0.3)


@pytest.mark.parametrize("peak", [1e-4, 0.5, 30.0])
def test_any_level_comes_to_the_wanted_loudness(peak: float):
    changed = at_loudness(sine(500, 1.0, peak=peak), 16_000, -23.0)
    assert changed.dtype == np.float32
    assert loudness(changed, 16_000) == pytest.approx(-23.0, abs=0.01)


def test_what_cannot_be_heard_has_no_loudness():
    assert loudness(np.zeros(16_000, np.float32), 16_000) == -math.inf
    for waveform in (np.zeros(16_000, np.float32), sine(0.1, 10.0)):
        with pytest.raises(ValueError, match="nothing in it can be heard"):
            at_loudness(waveform, 16_000, -23.0)
