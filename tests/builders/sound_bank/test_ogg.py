import io

import numpy as np
import soundfile

from lightning_ss2a.builders.sound_bank.ogg import encode_ogg, with_serial
from tests.bank_examples import noise
from tests.perception.media_files import sine


def test_the_same_sound_gives_the_same_bytes():
    waveform = noise(1.0, 32_000)
    assert encode_ogg(waveform, 32_000, 0.2) == encode_ogg(waveform, 32_000, 0.2)


def test_a_sound_comes_back_at_its_length_and_rate():
    waveform = sine(700, 1.37, 32_000)
    decoded, rate = soundfile.read(io.BytesIO(encode_ogg(waveform, 32_000, 0.4)), dtype="float32")
    assert (rate, len(decoded)) == (32_000, len(waveform))
    assert np.sqrt(np.mean((decoded - waveform) ** 2)) < 0.02


def test_quality_costs_bytes():
    waveform = noise(2.0, 32_000)
    assert len(encode_ogg(waveform, 32_000, 0.1)) < len(encode_ogg(waveform, 32_000, 0.8))


def test_the_checksum_is_that_of_the_library():
    file = io.BytesIO()
    soundfile.write(file, noise(1.0), 16_000, format="OGG", subtype="VORBIS")
    ogg = file.getvalue()
    assert with_serial(ogg, int.from_bytes(ogg[14:18], "little")) == ogg
