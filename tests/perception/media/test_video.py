import inspect
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import scipy.signal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media import containers, video, waveform
from lightning_ss2a.perception.media.files import load_audio
from lightning_ss2a.perception.media.video import Clip, PyAVReader, VideoReader
from tests.perception.media_files import result_or_error, sine, sound_file
from tests.perception.media_zoo import (
    BLACK,
    BLUE,
    CODECS,
    GREEN,
    QUARTERS,
    RED,
    VIDEOS,
    number_of,
    write_video,
    write_zoo,
)

READER = PyAVReader()
TIMES = np.arange(50) / 25


def shown_at(times, moments) -> list[int]:
    """By hand: the number of the last frame presented at or before each moment; of the first, before any."""
    return [
        max([number for number, time in enumerate(times) if time <= moment + 1e-6], default=0) for moment in moments
    ]


def numbers(clip: Clip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


def flash(number: int) -> np.ndarray:
    """White at 1 s, else black."""
    return np.full((48, 64, 3), 255 * (number == 25), np.uint8)


def click(second: float, rate: int, seconds: float = 2.0) -> np.ndarray:
    """A short burst whose middle is at a moment."""
    times = np.arange(round(seconds * rate)) / rate - second
    return (0.8 * np.exp(-((times / 0.002) ** 2)) * np.cos(2 * np.pi * 1500 * times)).astype(np.float32)


# Frames


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("count", [1, 7, 64])
def test_frames_are_those_on_the_screen_at_the_centres_of_equal_parts(tmp_path, suffix, count):
    clip = READER.read(write_video(tmp_path / f"x{suffix}", TIMES), frames=count)
    moments = (np.arange(count) + 0.5) * 2 / count
    assert clip.seconds == pytest.approx(2, abs=0.002)
    np.testing.assert_allclose(clip.timestamps, moments, atol=0.002)
    assert numbers(clip) == shown_at(TIMES, moments)
    np.testing.assert_allclose(clip.presented, TIMES[numbers(clip)], atol=0.0015)
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape == (count, 48, 64, 3)
    assert clip.timestamps.dtype == clip.presented.dtype == np.float32
    assert (clip.waveform, clip.no_sound) == (None, "not asked for")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_presentation_times_count_where_the_frame_rate_varies(tmp_path, suffix):
    times = np.round(np.cumsum(np.random.default_rng(0).choice([0.02, 0.03, 0.1, 0.4], 40)), 3)
    times -= times[0]
    clip = READER.read(write_video(tmp_path / f"x{suffix}", times), frames=64)
    moments = (np.arange(64) + 0.5) * clip.seconds / 64
    assert times[-1] < clip.seconds < times[-1] + 0.5
    assert numbers(clip) == shown_at(times, moments)


def test_a_short_video_repeats_its_frames(tmp_path):
    clip = READER.read(write_video(tmp_path / "x.mp4", [0, 0.04, 0.08]), frames=64)
    assert [numbers(clip).count(number) for number in range(3)] == [21, 22, 21]
    assert (np.diff(clip.timestamps) > 0).all()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_video_of_one_frame(tmp_path, suffix):
    clip = READER.read(write_video(tmp_path / f"x{suffix}", [0.0]), frames=4)
    assert numbers(clip) == [0] * 4
    assert clip.seconds > 0


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("window", [(0, 1), (0.7, 1.5), (5.21, 6.3), (9.0, 14.0)])
def test_a_window_is_as_if_the_clip_had_been_cut_out(tmp_path, suffix, window):
    times = np.arange(250) / 25
    path = write_video(tmp_path / f"x{suffix}", times, gop=50)
    clip = READER.read(path, frames=8, window=window)
    end = min(window[1], 10)
    moments = window[0] + (np.arange(8) + 0.5) * (end - window[0]) / 8
    assert clip.seconds == pytest.approx(end - window[0], abs=0.002)
    assert numbers(clip) == shown_at(times, moments)
    np.testing.assert_allclose(clip.timestamps, moments - window[0], atol=0.002)


def test_a_window_after_the_end(tmp_path):
    path = write_video(tmp_path / "x.mp4", TIMES)
    with pytest.raises(InputError, match=r"^clip: no frame of the video is in the clip from 7 s to 17 s$"):
        READER.read(path, window=(7, 17), name="clip")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_no_frame_before_the_key_frame_is_needed(tmp_path, suffix, monkeypatch):
    """The central frame of 10 s needs the key frame at 4 s: of 250 frames, some 30 are decoded."""
    path = write_video(tmp_path / f"x{suffix}", np.arange(250) / 25, gop=50)
    seen = []
    add = video._Shown.add
    monkeypatch.setattr(video._Shown, "add", lambda self, frame: (seen.append(frame), add(self, frame)))
    clip = READER.read(path)
    assert numbers(clip) == [125]
    assert len(seen) < 60


@pytest.mark.parametrize(("count", "converted"), [(1, 1), (7, 7), (64, 50)])
def test_only_wanted_frames_are_converted_once(tmp_path, monkeypatch, count, converted):
    calls = []
    upright = video._Shown._upright
    monkeypatch.setattr(video._Shown, "_upright", lambda self, frame: (calls.append(frame), upright(self, frame))[1])
    READER.read(write_video(tmp_path / "x.mp4", TIMES), frames=count)
    assert len(calls) == converted


def quarters(frame: np.ndarray) -> list[tuple[int, ...]]:
    """The pure colours of a frame's quarters, row by row."""
    height, width = frame.shape[:2]
    places = [(y, x) for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return [tuple(255 * int(value > 127) for value in frame[place]) for place in places]


def turn_header(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Writes the matrix of an MP4's video track: x' = a x + c y, y' = b x + d y (ISO 14496-12, tkhd), y downwards."""
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    return data[:at] + matrix + data[at + 36 :]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), [RED, GREEN, BLUE, BLACK]),
        ((0, 1, -1, 0), [BLUE, RED, BLACK, GREEN]),  # a phone held upright: a quarter clockwise
        ((-1, 0, 0, -1), [BLACK, BLUE, GREEN, RED]),
        ((0, -1, 1, 0), [GREEN, BLACK, RED, BLUE]),
    ],
)
def test_a_video_stands_upright_as_its_header_says(tmp_path, matrix, expected):
    path = write_video(tmp_path / "x.mp4", TIMES, frames=lambda number: QUARTERS)
    path.write_bytes(turn_header(path.read_bytes(), *matrix))
    clip = READER.read(path, frames=2)
    assert quarters(clip.frames[1]) == expected
    assert clip.frames.shape[1:3] == ((48, 64) if matrix[0] else (64, 48))


def test_pixels_become_square(tmp_path):
    path = write_video(tmp_path / "x.mp4", TIMES, frames=lambda number: QUARTERS, pixel_aspect="3/2")
    clip = READER.read(path)
    assert clip.frames.shape == (1, 48, 96, 3)
    assert quarters(clip.frames[0]) == [RED, GREEN, BLUE, BLACK]


def test_large_frames_shrink_to_the_means_of_their_areas(tmp_path):
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[::2] = 255  # three of five rows, two of the next five
    path = write_video(tmp_path / "x.mp4", [0, 0.04], frames=lambda number: stripes)
    clip = PyAVReader(longest_side=64).read(path)
    assert clip.frames.shape == (1, 48, 64, 3)
    expected = stripes.reshape(48, 5, 64, 5, 3).mean(axis=(1, 3))
    assert np.abs(clip.frames[0] - expected).max() <= 3


def test_frames_that_change_their_size_are_all_as_large_as_the_first(tmp_path):
    small = write_video(tmp_path / "small.ts", TIMES[:25], frames=lambda number: QUARTERS)
    large = write_video(tmp_path / "large.ts", TIMES[25:], frames=lambda number: QUARTERS.repeat(2, 0).repeat(2, 1))
    path = tmp_path / "x.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())  # transport streams may be joined so
    clip = READER.read(path, frames=8)
    assert clip.frames.shape == (8, 48, 64, 3)
    assert [quarters(frame) for frame in clip.frames] == [[RED, GREEN, BLUE, BLACK]] * 8


# Sound


def test_lossless_sound_is_what_scipy_makes_of_the_mean_of_its_channels(tmp_path):
    sound = np.stack([sine(440, 2, 44_100), sine(1000, 2, 44_100, peak=0.2)], axis=1)
    clip = READER.read(write_video(tmp_path / "x.mkv", TIMES, sound), sample_rate=16_000)
    expected = scipy.signal.resample_poly(sound.mean(axis=1), 160, 441)
    assert clip.no_sound == ""
    assert clip.waveform.dtype == np.float32
    assert clip.waveform.shape == (32_000,)
    np.testing.assert_allclose(clip.waveform, expected, atol=1e-4)  # 16 bits


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_the_sound_of_a_video_is_that_of_a_sound_file_with_the_same_samples(tmp_path, suffix):
    sound = (0.3 * np.random.default_rng(0).standard_normal((88_200, 2))).clip(-1, 1).astype(np.float32)
    clip = READER.read(write_video(tmp_path / f"x{suffix}", TIMES, sound), sample_rate=16_000)
    file = load_audio(sound_file(sound, 44_100), "x.wav", 16_000)
    np.testing.assert_allclose(clip.waveform, file, atol=4e-5)


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000, 96_000])
@pytest.mark.parametrize("wanted", [16_000, 48_000])
def test_a_sine_keeps_its_frequency_at_every_rate(tmp_path, rate, wanted):
    clip = READER.read(write_video(tmp_path / "x.mkv", TIMES, sine(1000, 2, rate), rate=rate), sample_rate=wanted)
    assert len(clip.waveform) == 2 * wanted
    np.testing.assert_allclose(clip.waveform[800:-800], sine(1000, 2, wanted)[800:-800], atol=3e-3)


def test_six_channels_count_alike(tmp_path):
    sound = np.zeros((88_200, 6), np.float32)
    sound[:, 3] = sine(300, 2, 44_100)  # the one for low tones
    clip = READER.read(write_video(tmp_path / "x.mkv", TIMES, sound), sample_rate=44_100)
    np.testing.assert_allclose(clip.waveform, sound[:, 3] / 6, atol=1e-4)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("window", [None, (0.7, 1.5)])
def test_a_click_is_heard_when_its_flash_is_seen(tmp_path, suffix, window):
    rate = 48_000
    path = write_video(tmp_path / f"x{suffix}", TIMES, click(1.0, rate), frames=flash, rate=rate)
    clip = READER.read(path, frames=64, sample_rate=rate, window=window)
    start = window[0] if window else 0.0
    lit = clip.frames.reshape(64, -1).mean(axis=1) > 127
    assert (1.0 - start) == pytest.approx(clip.presented[lit][0], abs=0.002)
    heard = np.abs(scipy.signal.hilbert(clip.waveform)).argmax() / rate
    assert heard == pytest.approx(1.0 - start, abs=0.003 if suffix != ".wmv" else 0.05)  # its muxer moves sound


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_eight_channels(tmp_path, codec):
    """Of which PyAV's own conversion takes nine."""
    sound = np.zeros((88_200, 8), np.float32)
    sound[:, 2] = sine(300, 2, 44_100)
    clip = READER.read(write_video(tmp_path / "x.mkv", TIMES, sound, sound_codec=codec), sample_rate=44_100)
    np.testing.assert_allclose(clip.waveform[4000:-4000], sound[4000 : len(clip.waveform) - 4000, 2] / 8, atol=0.005)


def test_sound_that_begins_late_follows_silence(tmp_path):
    path = write_video(tmp_path / "x.mkv", TIMES, sine(1000, 1.0, 44_100), sound_start=0.5)
    waveform = READER.read(path, sample_rate=16_000).waveform
    assert len(waveform) == 24_000
    assert np.abs(waveform[:7900]).max() < 1e-3
    np.testing.assert_allclose(waveform[8200:-200], sine(1000, 1.0)[200:-200], atol=3e-3)


def test_a_hole_in_the_sound_stays_a_hole_and_jitter_does_not():
    track = containers.SoundTrack(1.0, None, "x")
    for time in (0.9, 1.0004, 1.1, 1.5):  # jitter of 0.4 ms, then a hole of 0.3 s
        frame = av.AudioFrame.from_ndarray(np.full((1, 100), 0.5, np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 1000, round(time * 10_000), Fraction(1, 10_000)
        track.add(frame)
    expected = np.concatenate([np.full(200, 0.5), np.zeros(300), np.full(100, 0.5)])
    np.testing.assert_array_equal(track.waveform(), expected)


def test_a_hole_is_filled_no_further_than_to_the_end():
    track = containers.SoundTrack(0.0, 2.0, "x")
    for time in (0.0, 1e6):  # a time stamp that is damaged
        frame = av.AudioFrame.from_ndarray(np.full((1, 100), 0.5, np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 1000, round(time * 1000), Fraction(1, 1000)
        track.add(frame)
    assert track.is_full
    np.testing.assert_array_equal(track.waveform(), np.concatenate([np.full(100, 0.5), np.zeros(1900)]))


@pytest.mark.parametrize("kind", ["u8", "s16", "s32", "flt", "dbl", "u8p", "s16p", "s32p", "fltp", "dblp"])
def test_samples_of_every_kind_are_scaled_as_libsndfile_does(kind):
    sound = np.array([[-1, 0.5], [0.25, -0.5], [0.0, 0.75]])
    dtype = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}[kind.rstrip("p")]
    if np.issubdtype(dtype, np.integer):
        stored = sound * -float(np.iinfo(np.int16 if dtype == np.uint8 else dtype).min)
        stored = stored / 256 + 128 if dtype == np.uint8 else stored
    else:
        stored = sound
    stored = stored.astype(dtype)
    array = np.ascontiguousarray(stored.T) if kind.endswith("p") else stored.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(array, format=kind, layout="stereo")
    np.testing.assert_allclose(containers._samples(frame), sound, atol=1e-7)


def test_too_long_a_sound_is_no_sound_but_its_video_is_one(tmp_path, monkeypatch):
    path = write_video(tmp_path / "x.mkv", TIMES, sine(440, 2, 44_100))
    monkeypatch.setattr(waveform, "MOST_SAMPLES", 50_000)
    clip = READER.read(path, sample_rate=16_000, name="x")
    assert clip.waveform is None
    assert clip.no_sound.startswith("x: the sound has ")
    assert numbers(clip) == [25]


# What cannot be used


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return folder, write_zoo(folder, "videos")


@pytest.mark.parametrize("name", VIDEOS)
def test_the_zoo(zoo, name):
    folder, reasons = zoo
    clip, error = result_or_error(
        lambda: READER.read(folder / "videos" / name, frames=64, sample_rate=16_000, name=name)
    )
    reason = reasons[f"videos/{name}"]
    found = error or clip.no_sound
    if reason is None:
        assert found == ""
        assert clip.waveform is not None
    else:
        assert found.startswith(f"{name}: ")
        assert reason in found


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1, width=64, height=48, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.VideoFrame.from_ndarray(QUARTERS, format="rgb24").reformat(format="yuvj420p")
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(sine(440, 1, 44_100)[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with pytest.raises(InputError, match=r"x\.mp4: no video stream$"):
        READER.read(path)
    assert len(load_audio(path.read_bytes(), "x", 16_000)) == pytest.approx(16_000, rel=0.05)


def test_frames_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MOST_PIXELS", 3000)
    with pytest.raises(InputError, match=r"^x: frames of 64 x 48 pixels, more than 3000$"):
        READER.read(write_video(tmp_path / "x.mp4", TIMES), name="x")


@pytest.mark.parametrize("mark", [b"drmi", b"encv", b"zzzz"])
def test_an_unknown_or_protected_codec(tmp_path, mark):
    path = write_video(tmp_path / "x.mp4", TIMES)
    data = path.read_bytes()
    at = data.index(b"avc1", data.index(b"stsd"))
    path.write_bytes(data[:at] + mark + data[at + 4 :])
    with pytest.raises(
        InputError, match=r"^x: its video is of a codec that cannot be decoded \(unknown, or protected\)$"
    ):
        READER.read(path, name="x")


@pytest.mark.parametrize("name", ["none.mp4", "folder", "nul\0.mp4"])
def test_no_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot be read|not a file"):
        READER.read(tmp_path / name)


def test_names_that_ffmpeg_would_take_for_addresses_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http:x.mp4", "concat:a|b.mp4", "pipe:0.mp4"):
        (tmp_path / name).write_bytes(write_video(tmp_path / "x.mp4", [0, 0.1]).read_bytes())
        assert READER.read(type(tmp_path)(name)).frames.shape == (1, 48, 64, 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return {
        suffix: write_video(folder / f"x{suffix}", TIMES[:12], sine(440, 0.5, 48_000), rate=48_000).read_bytes()
        for suffix in CODECS
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(list(CODECS)),
    places=st.lists(st.tuples(st.floats(0, 1) | st.floats(0, 0.1), st.integers(0, 255)), min_size=1, max_size=6),
    part=st.floats(0.3, 1) | st.just(1.0),
)
def test_a_damaged_video_is_an_input_error_or_a_clip(whole, tmp_path, suffix, places, part):
    data = bytearray(whole[suffix])
    for place, value in places:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path / "x"
    path.write_bytes(data[: int(part * len(data))])
    clip, error = result_or_error(lambda: READER.read(path, frames=5, sample_rate=16_000, name="x"))
    if error:
        assert error.startswith("x: ")
        assert "\n" not in error
    else:
        assert clip.frames.shape[0] == 5
        assert clip.frames.dtype == np.uint8
        assert (clip.waveform is None) == bool(clip.no_sound)
        assert clip.waveform is None or np.isfinite(clip.waveform).all()


# The reader


def test_it_is_a_video_reader_that_names_its_decoder():
    assert isinstance(READER, VideoReader)
    own, protocol = (inspect.signature(kind.read).parameters for kind in (PyAVReader, VideoReader))
    assert own == protocol
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    assert READER.decoder == f"PyAV {av.__version__}, libavcodec {version}, frames of at most 512 pixels"


@pytest.mark.parametrize("options", [{"longest_side": 0}, {"threads": -1}])
def test_options_that_mean_nothing(options):
    with pytest.raises(InputError, match="longest_side needs at least 1, threads at least 0"):
        PyAVReader(**options)


def test_threads_change_nothing(tmp_path):
    path = write_video(tmp_path / "x.mp4", np.arange(100) / 25, gop=20)
    clips = [PyAVReader(threads=threads).read(path, frames=16, window=(1, 3)) for threads in (1, 3)]
    np.testing.assert_array_equal(clips[0].frames, clips[1].frames)


def test_frames_need_a_number(tmp_path):
    with pytest.raises(InputError, match="frames must be at least 1, found 0"):
        READER.read(tmp_path / "x.mp4", frames=0)
