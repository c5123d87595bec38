import io
import os
import struct
import zlib

import numpy as np
import pytest
import scipy.signal
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media import files as media
from lightning_ss2a.perception.media import svg
from lightning_ss2a.perception.media.containers import sound_rate
from lightning_ss2a.perception.media.files import load_audio, load_image, load_picture, load_sound, read_media
from tests.perception.media_files import picture_file, plain_picture, result_or_error, sine, sound_file
from tests.perception.media_zoo import write_sound, write_video, write_zoo

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = np.array([[RED, GREEN], [BLUE, (0, 0, 0)]], np.uint8).repeat(16, axis=0).repeat(16, axis=1)
"""Red, green / blue, black; so large that JPEG's blocks keep the colours apart."""


def corners(image: np.ndarray) -> list[list[int]]:
    """Which of CORNERS' quarters is in each of the picture's: 0 red, 1 green, 2 blue, 3 black."""
    colours = CORNERS[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    quarter = len(image) // 4
    places = [[(quarter, quarter), (quarter, -quarter)], [(-quarter, quarter), (-quarter, -quarter)]]
    return [[int(np.abs(colours - image[place].astype(int)).sum(axis=1).argmin()) for place in row] for row in places]


# Pictures


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_every_format_keeps_its_colours_in_their_places(kind):
    assert corners(load_image(picture_file(CORNERS, kind), f"x.{kind.lower()}")) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("orientation", "expected"),  # the table of the EXIF standard: where the stored first row and column are seen
    [
        (1, [[0, 1], [2, 3]]),
        (2, [[1, 0], [3, 2]]),
        (3, [[3, 2], [1, 0]]),
        (4, [[2, 3], [0, 1]]),
        (5, [[0, 2], [1, 3]]),
        (6, [[2, 0], [3, 1]]),
        (7, [[3, 1], [2, 0]]),
        (8, [[1, 3], [0, 2]]),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_stands_upright_as_its_camera_noted(kind, orientation, expected):
    exif = Image.Exif()
    exif[0x112] = orientation
    assert corners(load_image(picture_file(CORNERS, kind, exif=exif), "x")) == expected


def test_damaged_camera_notes_do_not_spoil_a_picture(recwarn):
    data = picture_file(CORNERS, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 9)
    assert corners(load_image(data, "x.jpg")) == [[0, 1], [2, 3]]
    assert not recwarn


def test_the_picture_of_a_phone_with_several_in_one_file_is_its_first():
    file = io.BytesIO()
    Image.fromarray(CORNERS).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32), "white")])
    assert corners(load_image(file.getvalue(), "x.jpg")) == [[0, 1], [2, 3]]


def test_a_wide_picture_is_in_the_middle_of_a_white_square():
    image = load_image(picture_file(np.full((10, 30, 3), RED, np.uint8)), "x.png")
    assert image.shape == (30, 30, 3)
    assert image.dtype == np.uint8
    assert (image[10:20] == RED).all()
    assert (image[:10] == 255).all()
    assert (image[20:] == 255).all()


def test_a_wide_picture_is_stretched_if_asked_to():
    pixels = np.full((10, 30, 3), RED, np.uint8)
    pixels[5:] = GREEN
    image = load_image(picture_file(pixels), "x.png", "stretched")
    assert image.shape == (30, 30, 3)
    assert (image[:10] == RED).all()
    assert (image[20:] == GREEN).all()


def test_what_is_transparent_is_cut_off_and_its_colour_never_seen():
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[..., :3] = GREEN
    pixels[5:15, 20:30] = (*RED, 255)
    pixels[0, 0, 3] = 7  # fainter than anything visible
    image = load_image(picture_file(pixels), "x.png")
    assert image.shape == (10, 10, 3)
    assert (image == RED).all()


def test_half_transparent_pixels_are_mixed_with_white():
    pixels = np.full((4, 4, 4), (255, 0, 0, 128), np.uint8)
    expected = 128 / 255 * np.array(RED) + 127 / 255 * np.array(WHITE)
    assert np.abs(load_image(picture_file(pixels), "x.png") - expected).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(1500, 750), (512, 512), (513, 100), (2, 3000)])
def test_a_large_picture_shrinks_to_512_pixels(height, width):
    assert load_image(picture_file(np.zeros((height, width, 3), np.uint8)), "x.png").shape == (512, 512, 3)


def test_shrinking_keeps_the_mean_and_smooths_stripes():
    stripes = np.zeros((2048, 2048, 3), np.uint8)
    stripes[::2] = 255
    image = load_image(picture_file(stripes), "x.png").astype(float)
    assert image.mean() == pytest.approx(127.5, abs=1)
    assert image[8:-8].std() < 3


def test_grey_of_16_bits_is_scaled_not_cut():
    grey = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    image = load_image(picture_file(Image.fromarray(grey)), "x.png")
    assert np.abs(image - (grey / 257)[..., None]).max() <= 0.5 + 1e-4


def test_colours_of_16_bits_are_scaled():
    level = 0x80FF  # 33023 / 257 = 128.5
    row = b"\0" + struct.pack(">6H", level, 0, 65535, level, 0, 65535)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in (
        (b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * 2)),
        (b"IEND", b""),
    ):
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    image = load_image(data, "x.png")
    assert np.abs(image.astype(int) - [128, 0, 255]).max() <= 1


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("1", 1, WHITE),
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 255), (100, 100, 100)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
    ],
)
def test_grey_and_black_and_white(mode, pixel, expected):
    assert (load_image(picture_file(Image.new(mode, (5, 5), pixel)), "x.png") == expected).all()


def test_cmyk_is_seen_as_ink():
    image = load_image(picture_file(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), "x.jpg")
    assert np.abs(image.astype(int) - RED).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_the_transparent_colour_of_a_palette_is_cut_off(kind):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 255, 0, 255, 0, 0, 0, 0, 255])
    for x, y in ((2, 3), (3, 3), (2, 4), (3, 4)):
        image.putpixel((x, y), 1)
    found = load_image(picture_file(image, kind, transparency=0), "x")
    assert found.shape == (2, 2, 3)
    assert (found == RED).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animated_picture_the_first_frame(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = picture_file(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert np.abs(load_image(data, "x").astype(int) - RED).max() <= 1


def test_entirely_transparent():
    with pytest.raises(InputError, match=r"^ghost\.png: the picture is entirely transparent$"):
        load_image(picture_file(np.zeros((5, 5, 4), np.uint8)), "ghost.png")


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a", sound_file(sine(440))],
    ids=["empty", "text", "head of a PNG", "head of a GIF", "sound"],
)
def test_what_is_no_picture(data):
    with pytest.raises(InputError, match=r"^dir/x\.png: not a picture \(.*needs PNG, JPEG, WEBP, GIF, BMP or SVG$"):
        load_image(data, "dir/x.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_truncated_picture(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = picture_file(noise, kind)
    with pytest.raises(InputError, match=r"^x: not a picture"):
        load_image(data[: len(data) // 2], "x")


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",  # Pillow runs Ghostscript
        picture_file(plain_picture(RED), "TIFF"),
        picture_file(plain_picture(RED), "PPM"),
    ],
    ids=["PostScript", "TIFF", "PPM"],
)
def test_formats_that_are_not_promised_are_not_opened_whatever_the_name(data):
    with pytest.raises(InputError, match="of no known type"):
        load_image(data, "x.png")


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header():
    data = bytearray(picture_file(plain_picture(RED), "BMP"))
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    with pytest.raises(InputError, match=r"not a picture"):
        load_image(bytes(data), "x.bmp")


def test_too_many_pixels_are_named(monkeypatch):
    monkeypatch.setattr(svg, "MOST_PIXELS", 99)
    monkeypatch.setattr(media, "MOST_PIXELS", 99)
    with pytest.raises(InputError, match=r"^x\.png: not a picture \(10 x 10 pixels, more than 99\)"):
        load_image(picture_file(plain_picture(RED, 10)), "x.png")
    assert load_image(picture_file(plain_picture(RED, 9)), "x.png").shape == (9, 9, 3)


def test_text_that_unpacks_to_a_bomb_is_refused():
    bomb = zlib.compress(bytes(1 << 27))
    chunk = b"zTXt" + b"Comment\0\0" + bomb
    good = picture_file(plain_picture(RED))
    packed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(InputError, match="not a picture"):
        load_image(good[:33] + packed + good[33:], "x.png")


def flip(data: bytes, places: list[tuple[float, int]]) -> bytes:
    damaged = bytearray(data)
    for place, bit in places:
        damaged[int(place * (len(damaged) - 1))] ^= 1 << bit
    return bytes(damaged)


flips = st.lists(st.tuples(st.floats(0, 1) | st.floats(0, 0.1), st.integers(0, 7)), min_size=1, max_size=4)
PICTURES = [picture_file(CORNERS, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]
SOUNDS = [
    sound_file(np.stack([sine(440, 0.1), sine(900, 0.1)], axis=1), 44_100, kind, subtype)
    for kind, subtype in (("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"))
]


@settings(max_examples=250, deadline=None)
@given(data=st.sampled_from(PICTURES), places=flips)
def test_a_damaged_picture_is_an_input_error_or_a_picture(data, places):
    image, error = result_or_error(load_image, flip(data, places), "x.png")
    if error:
        assert error.startswith("x.png: ")
        assert "\n" not in error
    else:
        assert image.dtype == np.uint8
        assert image.shape == (len(image), len(image), 3)
        assert 1 <= len(image) <= 512


# Sounds


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 1 / 128),
        ("WAV", "PCM_16", 1 / 2**15),
        ("WAV", "PCM_24", 1 / 2**23),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "FLOAT", 1e-7),
        ("WAV", "DOUBLE", 1e-7),
        ("FLAC", "PCM_24", 1 / 2**23),
        ("OGG", "VORBIS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_samples_come_back_within_the_formats_steps(kind, subtype, tolerance):
    waveform = sine(440, 0.5)
    found = load_audio(sound_file(waveform, 16_000, kind, subtype), "x", 16_000)
    assert found.dtype == np.float32
    assert np.abs(found[: len(waveform)] - waveform)[1000:-1000].max() <= tolerance


def id3_tag(size: int) -> bytes:
    return b"ID3\3\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def test_an_mp3_that_does_not_say_how_long_it_is_is_as_long_as_it_sounds():
    """Without the frame that counts the others libsndfile guesses, and takes a tag for sound."""
    whole = sound_file(sine(440, 1.0), 16_000, "MP3")
    counting = whole.index(b"Info") if b"Info" in whole else whole.index(b"Xing")
    first = whole.index(whole[:2], counting)  # the frame behind it
    found = load_audio(id3_tag(30_000) + whole[first:], "x", 16_000)
    assert abs(len(found) - 16_000) < 3000


@pytest.mark.parametrize("tag", [b"", id3_tag(30_000)], ids=["no tag", "tag"])
def test_an_mp3_that_says_how_long_it_is_is_refused_if_it_is_cut_off(tag):
    whole = tag + sound_file(sine(440, 4.0), 16_000, "MP3")
    with pytest.raises(InputError, match=r"^x: cut off: [12]\.\d s of 4\.\d s are there"):
        load_audio(whole[: (len(whole) + len(tag)) // 2], "x", 16_000)


def test_an_mp3_whose_tag_libsndfile_does_not_skip():
    whole = sound_file(sine(440, 1.0), 16_000, "MP3")
    tag = b"ID3\3" + bytes(16)  # an empty tag, then padding
    assert abs(len(load_audio(tag + whole, "x", 16_000)) - 16_000) < 3000


def test_channels_are_averaged():
    left, right = sine(440), sine(1000, peak=0.2)
    found = load_audio(sound_file(np.stack([left, right], axis=1), subtype="FLOAT"), "x", 16_000)
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_resampled_sine_is_the_sine_sampled_at_the_new_rate(rate):
    found = load_audio(sound_file(sine(1000, 1.0, rate), rate, subtype="FLOAT"), "x", 16_000)
    assert len(found) == 16_000
    assert found.dtype == np.float32
    assert np.abs(found - sine(1000, 1.0, 16_000))[800:-800].max() < 2e-3


def test_what_the_new_rate_cannot_hold_is_filtered_not_folded():
    high = sine(15_000, 1.0, 48_000)  # would fold to 1 kHz
    found = load_audio(sound_file(high, 48_000, subtype="FLOAT"), "x", 16_000)
    assert np.abs(found[800:-800]).max() < 1e-3


def test_one_sample_is_a_sound():
    found = load_audio(sound_file(np.array([0.5], np.float32), 48_000), "x", 16_000)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0), "the sound is empty"),
        (np.zeros(4000), "the sound is silent"),
        (np.full(4000, 9e-5), "the sound is silent"),
        (np.array([0.1, np.nan, 0.2]), "holds numbers that are not finite"),
        (np.array([0.1, -np.inf]), "holds numbers that are not finite"),
        (np.array([0.1, 1e300]), "holds numbers that are not finite"),
        (np.stack([sine(440), -sine(440)], axis=1), "the sound is silent"),  # its channels cancel
    ],
)
def test_sounds_that_cannot_be_used(samples, message):
    with pytest.raises(InputError, match=rf"^dog\.wav: .*{message}"):
        load_audio(sound_file(samples, subtype="DOUBLE"), "dog.wav", 16_000)


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", b"hello" * 100, picture_file(CORNERS), b"OggS" + bytes(100)],
    ids=["empty", "head of a WAV", "text", "picture", "head of an OGG"],
)
def test_what_is_no_sound(data):
    with pytest.raises(InputError, match=r"^dog\.wav: not a sound file \([^<]*\)$"):
        load_audio(data, "dog.wav", 16_000)


def test_a_sound_that_was_cut_off_is_what_is_left_of_it():
    waveform = sine(440, 1.0)
    data = sound_file(waveform, subtype="PCM_16")
    found = load_audio(data[: len(data) // 2], "x", 16_000)
    assert 0 < len(found) <= len(waveform) // 2
    np.testing.assert_allclose(found, waveform[: len(found)], atol=1e-4)


def test_a_header_that_asks_for_all_memory_is_refused():
    data = bytearray(sound_file(sine(440), kind="FLAC"))
    assert data[:4] == b"fLaC"
    data[21] |= 0x0F  # STREAMINFO: 36 bits of the number of samples, from the second half of byte 21
    data[22:26] = b"\xff\xff\xff\xff"
    with pytest.raises(InputError, match=r"^x\.flac: the sound has 68719476735 samples, more than 268435456; cut it$"):
        load_audio(bytes(data), "x.flac", 16_000)


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_a_rate_that_no_recorder_has_is_refused(rate):
    data = bytearray(sound_file(sine(440)))
    data[24:28] = struct.pack("<I", rate)
    with pytest.raises(InputError, match=rf"{rate} samples per second, needs 1000 to 768000"):
        load_audio(bytes(data), "x.wav", 16_000)


@settings(max_examples=250, deadline=None)
@given(data=st.sampled_from(SOUNDS), places=flips)
def test_a_damaged_sound_is_an_input_error_or_a_sound(data, places):
    waveform, error = result_or_error(load_audio, flip(data, places), "x.wav", 16_000)
    if error:
        assert error.startswith("x.wav: ")
        assert "\n" not in error
    else:
        assert waveform.ndim == 1
        assert waveform.dtype == np.float32
        assert np.isfinite(waveform).all()
        assert np.abs(waveform).max() > 0


def test_every_suffix_that_a_folder_may_hold_is_read():
    kinds = {".wav": "WAV", ".ogg": "OGG", ".oga": "OGG", ".opus": "OGG", ".flac": "FLAC", ".mp3": "MP3"}
    assert {*kinds, *IN_CONTAINERS} == set(media.SOUND_SUFFIXES)
    assert set(kinds.values()) <= set(soundfile.available_formats())
    assert {suffix.lstrip(".").upper().replace("JPG", "JPEG") for suffix in media.IMAGE_SUFFIXES} == {
        *svg.BITMAP_FORMATS,
        "SVG",
    }


IN_CONTAINERS = (".m4a", ".aac", ".wma", ".ac3", ".caf")
"""Suffixes of sounds that PyAV reads."""


@pytest.mark.parametrize("suffix", [*IN_CONTAINERS, ".webm", ".mka"])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_sounds_in_containers(tmp_path, suffix, rate):
    if suffix == ".webm" and rate != 48_000:
        pytest.skip("Opus has no such rate")
    data = write_sound(tmp_path / f"x{suffix}", sine(1000, 1.0, rate), rate).read_bytes()
    found = load_audio(data, "x", 16_000)
    assert found.dtype == np.float32
    assert 16_000 <= len(found) <= 17_500  # an encoder's last block may be longer than the sound, its first, too
    spectrum = np.abs(np.fft.rfft(found[1000:15_000]))
    assert spectrum.argmax() == 875  # 1000 Hz of 14,000 samples at 16 kHz
    assert np.abs(found[2000:14_000]).max() == pytest.approx(0.5, abs=0.03)


def test_what_a_lossless_container_holds_is_what_the_sound_file_of_it_holds(tmp_path):
    sound = (0.2 * np.random.default_rng(0).standard_normal((44_100, 2))).clip(-1, 1).astype(np.float32)
    held = load_audio(write_sound(tmp_path / "x.mka", sound).read_bytes(), "x", 16_000)
    np.testing.assert_allclose(held, load_audio(sound_file(sound, 44_100), "x", 16_000), atol=4e-5)
    np.testing.assert_allclose(held, scipy.signal.resample_poly(sound.mean(axis=1), 160, 441), atol=4e-5)


def test_the_sound_of_a_video_is_a_sound(tmp_path):
    data = write_video(tmp_path / "x.mp4", np.arange(25) / 25, sine(1000, 1.0, 44_100)).read_bytes()
    assert len(load_audio(data, "x.mp4", 16_000)) == pytest.approx(16_000, abs=800)


@pytest.mark.parametrize(("suffix", "rate"), [(".mp4", 44_100), (".mkv", 22_050), (".webm", 48_000)])
def test_a_sound_at_its_own_rate(tmp_path, suffix, rate):
    path = write_video(tmp_path / f"x{suffix}", np.arange(25) / 25, sine(1000, 1.0, rate), rate=rate)
    waveform, own = load_sound(path.read_bytes(), "x", None, (0.0, 0.5))
    assert (sound_rate(path, "x"), own, len(waveform)) == (rate, rate, rate // 2)
    np.testing.assert_array_equal(waveform, load_audio(path.read_bytes(), "x", rate, (0.0, 0.5)))


def test_the_rate_of_no_sound(tmp_path):
    path = write_video(tmp_path / "x.mp4", np.arange(5) / 25)
    with pytest.raises(InputError, match=r"^x: no audio stream$"):
        sound_rate(path, "x")


def test_a_sound_that_is_cut_off_is_refused():
    noise = (0.5 * np.random.default_rng(0).standard_normal(64_000)).clip(-1, 1)
    wav, flac = (sound_file(noise, 16_000, kind) for kind in ("WAV", "FLAC"))
    assert len(load_audio(wav[: int(0.96 * len(wav))], "x", 16_000)) > 60_000  # headers are that inaccurate
    with pytest.raises(InputError, match=r"^x: cut off: 2\.4 s of 4\.0 s are there; get the file again$"):
        load_audio(wav[: int(0.6 * len(wav))], "x", 16_000)
    with pytest.raises(InputError, match=r"^x: the sound is cut off or damaged \("):
        load_audio(flac[: int(0.6 * len(flac))], "x", 16_000)


def test_a_wav_whose_recorder_left_its_size_open_is_whole():
    data = bytearray(sound_file(sine(440)))
    for size in (0, 0xFFFFFFFF):
        data[4:8] = struct.pack("<I", size)
        assert len(load_audio(bytes(data), "x", 16_000)) == 8000


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_window_is_cut_out_before_resampling(tmp_path, rate):
    sound = (0.2 * np.random.default_rng(0).standard_normal(2 * rate)).clip(-1, 1).astype(np.float32)
    for data in (
        sound_file(sound, rate, subtype="FLOAT"),
        write_sound(tmp_path / "x.mka", sound, rate).read_bytes(),
    ):
        expected = load_audio(sound_file(sound[rate // 2 : rate], rate, subtype="FLOAT"), "x", 16_000)
        np.testing.assert_allclose(load_audio(data, "x", 16_000, (0.5, 1.0)), expected, atol=5e-5)
        assert len(load_audio(data, "x", 16_000, (1.5, 11.5))) == 8000
        with pytest.raises(InputError, match=r"^x: no sound from 7 s to 17 s; it ends at 2 s$"):
            load_audio(data, "x", 16_000, (7, 17))


@pytest.mark.parametrize("kind", ["pictures", "sounds"])
def test_the_zoo(tmp_path, kind):
    for name, reason in write_zoo(tmp_path, kind).items():
        data = (tmp_path / name).read_bytes()
        loads = {"pictures": [(load_image, ()), (load_picture, ())], "sounds": [(load_audio, (16_000,))]}[kind]
        for load, options in loads:
            found, error = result_or_error(load, data, name, *options)
            if reason is None:
                assert error is None
                assert len(found)
            else:
                assert error.startswith(f"{name}: ")
                assert reason in error


# Pictures in their own shape


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(10, 30, (10, 30)), (1500, 750, (512, 256)), (300, 2000, (77, 512)), (2, 3000, (1, 512))],
)
def test_a_picture_keeps_its_shape(height, width, expected):
    found = load_picture(picture_file(np.full((height, width, 3), RED, np.uint8)), "x.png")
    assert found.shape == (*expected, 3)
    assert found.dtype == np.uint8
    assert (found == RED).all()


def test_a_picture_has_the_longest_side_that_is_asked_for():
    assert load_picture(picture_file(np.zeros((100, 300, 3), np.uint8)), "x", 150).shape == (50, 150, 3)


def test_boxes_that_were_marked_in_a_picture_fit_it_though_its_edges_are_transparent():
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[5:15, 20:30] = (*RED, 255)
    found = load_picture(picture_file(pixels), "x.png")
    assert found.shape == (40, 60, 3)
    assert (found[5:15, 20:30] == RED).all()
    assert (found[:5] == 255).all()


def test_a_turned_picture_has_the_shape_that_is_seen():
    exif = Image.Exif()
    exif[0x112] = 6
    found = load_picture(picture_file(CORNERS[:16], "JPEG", exif=exif), "x")
    assert found.shape == (32, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_without_transparency_a_square_picture_is_the_same_both_ways(kind):
    data = picture_file(CORNERS, kind)
    np.testing.assert_array_equal(load_picture(data, "x"), load_image(data, "x"))


@pytest.mark.parametrize("load", [load_image, load_picture])
@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf", b"  \n", b'<?xml version="1.0"?>\n<!-- x -->'])
@pytest.mark.parametrize("name", ["x.svg", "x.png", "x"])
def test_what_a_picture_is_its_content_says(load, head, name):
    square = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8" fill="#f00"/></svg>'
    )
    assert (load(head + square, name) == RED).all()
    assert (load(picture_file(plain_picture(RED)), name) == RED).all()


# Files


def test_relative_paths_start_from_the_root_and_others_are_taken_as_they_are(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "in").write_bytes(b"inside")
    (tmp_path / "out").write_bytes(b"outside")
    assert read_media(tmp_path / "root", "in") == b"inside"
    assert read_media(tmp_path / "root", "../out") == b"outside"  # the list is its user's own, as its folders are
    assert read_media(tmp_path / "root", str(tmp_path / "out")) == b"outside"


@pytest.mark.parametrize("reference", ["none.png", "none/none.png", "folder/none.rcc!a", "a\0b"])
def test_missing_files_are_named(tmp_path, reference):
    with pytest.raises(InputError, match=r"cannot be read"):
        read_media(tmp_path, reference)


def test_a_name_with_an_exclamation_mark_is_a_file(tmp_path):
    (tmp_path / "wow!.png").write_bytes(b"x")
    assert read_media(tmp_path, "wow!.png") == b"x"


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        read_media(tmp_path, ".")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png: not a file"):
        read_media(tmp_path, "pipe.png")
