"""Sounds as they are read for evaluation."""

import io

import numpy as np
import pytest
import soundfile

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.sounds import SoundFacts, clipped_part, read_sound


def wav(waveform: np.ndarray, rate: int = 8000) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, waveform, rate, format="WAV", subtype="FLOAT")
    return content.getvalue()


def test_it_is_the_mean_of_the_channels_cut_to_the_first_seconds():
    random = np.random.default_rng(0).uniform(-0.5, 0.5, (16000, 2)).astype(np.float32)
    sound = read_sound(wav(random), "x.wav", 1.5)
    np.testing.assert_array_equal(sound.waveform, random[:12000].mean(1))
    assert sound.facts.seconds == 2.0
    assert len(sound.at_rate(16000)) == 24000
    assert sound.at_rate(8000) is sound.waveform
    assert len(read_sound(wav(random), "x.wav", None).waveform) == 16000


def test_silence_is_heard_and_told():
    sound = read_sound(wav(np.zeros(800)), "x.wav", 10)
    assert sound.facts.silent
    assert not read_sound(wav(np.full(800, 0.01)), "x.wav", 10).facts.silent


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.wav: not a sound file"),
        (b"no sound", "x.wav: not a sound file"),
        (wav(np.zeros(0)), "x.wav: the sound is empty"),
        (wav(np.array([0.1, np.nan])), "x.wav: the sound holds numbers that are not finite"),
    ],
)
def test_what_is_no_sound_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        read_sound(data, "x.wav", 10)


@pytest.mark.parametrize(
    ("waveform", "part"),
    [([1, 1, 0, 1], 0), ([1, 1, 1, 0], 0.75), ([-1, 1, -1, 1], 1), ([0.9, 0.9, 0.9], 0), ([0, 1, 1, 1], 0.75)],
)
def test_clipping_is_a_run_at_the_end_of_the_scale(waveform, part):
    assert clipped_part(np.array(waveform, np.float32)) == part


def test_facts_come_out_of_a_row_as_they_went_in():
    facts = read_sound(wav(np.full(801, 0.3)), "x.wav", 10).facts
    assert SoundFacts.of_row(facts.row()) == facts
