"""A zoo of real encoded files, good and bad: pictures, sounds and videos whose content is known at every moment."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.perception.media_files import picture_file, sine, sound_file

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
QUARTERS = np.array([[RED, GREEN], [BLUE, BLACK]], np.uint8).repeat(24, axis=0).repeat(32, axis=1)
"""Red, green / blue, black: [48, 64, 3]."""

RATE = 44_100
CODECS = {
    ".mp4": ("libx264", "aac"), ".mov": ("libx264", "pcm_s16le"), ".mkv": ("libx264", "flac"),
    ".webm": ("libvpx-vp9", "libopus"), ".avi": ("mpeg4", "pcm_s16le"), ".wmv": ("wmv2", "wmav2"),
    ".ts": ("libx264", "aac"), ".flv": ("libx264", "aac"),
}  # fmt: skip
"""What is put into a container, if the test does not say."""
SOUND_CODECS = {
    ".m4a": "aac",
    ".aac": "aac",
    ".wma": "wmav2",
    ".webm": "libopus",
    ".mka": "flac",
    ".ac3": "ac3",
    ".caf": "pcm_s16be",
}


def numbered_frame(number: int) -> np.ndarray:
    """A frame that tells its number: units of 30 in the lower half, the rest in the upper. uint8 [48, 64, 3]."""
    frame = np.empty((48, 64, 3), np.uint8)
    frame[:24], frame[24:] = 8 + 8 * (number % 30), 8 + 8 * (number // 30)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that a frame tells, of whatever size it is."""
    middle, quarter = frame.shape[1] // 2, len(frame) // 4
    upper, lower = (round((float(frame[row, middle].mean()) - 8) / 8) for row in (quarter, -quarter))
    return upper + 30 * lower


def write_video(
    path: Path,
    times: Sequence[float],
    sound: np.ndarray | None = None,
    *,
    frames: Callable[[int], np.ndarray] = numbered_frame,
    rate: int = RATE,
    sound_start: float = 0.0,
    codec: str | None = None,
    sound_codec: str | None = None,
    rotation: int = 0,
    pixel_aspect: str | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a video of numbered frames, presented at these times (seconds), with a sound [samples(, channels)]."""
    import av

    video_codec, default_sound_codec = CODECS[path.suffix]
    with av.open(str(path), "w", options=options or {}) as container:
        height, width = frames(0).shape[:2]
        video = container.add_stream(codec or video_codec, rate=25, width=width, height=height, pix_fmt="yuv420p")
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        video.codec_context.gop_size = gop
        if video.codec_context.name == "libx264":
            video.options = {"qp": "4"}
        else:
            video.bit_rate = 4_000_000
        if rotation:
            video.set_display_rotation(rotation)
        if pixel_aspect:
            video.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
        audio = add_sound(container, sound_codec or default_sound_codec, sound, rate) if sound is not None else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(frames(number), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), video.codec_context.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            encode_sound(container, audio, sound, rate, sound_start)
    return path


def add_sound(container: Any, codec: str, sound: np.ndarray, rate: int) -> Any:
    """Adds a stream of sound to a container that is written."""
    channels = 1 if sound.ndim == 1 else sound.shape[1]
    stream = container.add_stream(codec, rate=rate, layout={1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels])
    if codec == "wmav2":
        stream.bit_rate = 64_000 * channels
    return stream


def encode_sound(container: Any, stream: Any, sound: np.ndarray, rate: int, start: float = 0.0) -> None:
    """Encodes a sound, float32 [samples(, channels)], and writes it."""
    import av

    packed = np.ascontiguousarray(sound, np.float32).reshape(1, -1)  # PyAV 18 takes 8 planes for 9
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = rate, round(start * rate), Fraction(1, rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_sound(path: Path, sound: np.ndarray, rate: int = RATE, codec: str | None = None) -> Path:
    """Writes a sound, float32 [samples(, channels)], in a container that libsndfile does not read."""
    import av

    with av.open(str(path), "w") as container:
        encode_sound(container, add_sound(container, codec or SOUND_CODECS[path.suffix], sound, rate), sound, rate)
    return path


def cut(data: bytes, part: float = 0.5) -> bytes:
    """The first part of a file."""
    return data[: int(len(data) * part)]


Makers = dict[str, tuple[Callable[[Path], Any], str | None]]
"""Name of a file to (what writes it, words of the reason why it cannot be used; None: it can)."""


def _bytes(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def _picture(kind: str, mode: str = "RGB", **options: Any) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(picture_file(Image.fromarray(QUARTERS).convert(mode), kind, **options))


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6  # the camera was held upright: the first row is seen on the right
    return picture_file(QUARTERS, "JPEG", exif=exif, quality=95)


def _animated(kind: str) -> bytes:
    frames = [Image.fromarray(QUARTERS), Image.new("RGB", (64, 48), "white")]
    return picture_file(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def _grey16() -> bytes:
    return picture_file(Image.fromarray(np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)))


def _see_through() -> bytes:
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[8:40, 8:56] = (255, 0, 0, 255)
    return picture_file(pixels)


_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="6"><rect width="8" height="6"/></svg>'
_NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)

PICTURES: Makers = {
    "good.png": (_picture("PNG"), None),
    "good.jpg": (_picture("JPEG", quality=95), None),
    "good.webp": (_picture("WEBP"), None),
    "turned_by_exif.jpg": (_bytes(_turned()), None),
    "grey_16_bits.png": (_bytes(_grey16()), None),
    "cmyk.jpg": (_picture("JPEG", "CMYK", quality=95), None),
    "grey.png": (_picture("PNG", "L"), None),
    "rgba.png": (_bytes(_see_through()), None),
    "palette.png": (_picture("PNG", "P"), None),
    "animated.gif": (_bytes(_animated("GIF")), None),
    "animated.webp": (_bytes(_animated("WEBP")), None),
    "jpeg_named.png": (_picture("JPEG", quality=95), None),
    "svg_named.png": (_bytes(_SVG), None),
    "sound_named.png": (_bytes(sound_file(sine(440))), "of no known type"),
    "cut_off.png": (_bytes(cut(picture_file(_NOISE))), "not a picture"),
    "empty.png": (_bytes(b""), "the file is empty, 0 bytes"),
    "transparent.png": (_bytes(picture_file(np.zeros((8, 8, 4), np.uint8))), "entirely transparent"),
}

_SURROUND = np.stack([sine(f, 1.0, 96_000) for f in (300, 400, 500, 600, 700, 800)], axis=1)
_SECOND = sine(1000, 1.0, RATE)


def _cut_m4a(path: Path) -> None:
    path.write_bytes(cut(write_sound(path, _SECOND).read_bytes()))


SOUNDS: Makers = {
    "good.wav": (_bytes(sound_file(_SECOND, RATE)), None),
    "good.m4a": (lambda path: write_sound(path, _SECOND), None),
    "good.wma": (lambda path: write_sound(path, _SECOND), None),
    "good.aac": (lambda path: write_sound(path, _SECOND), None),
    "mono_8_khz.wav": (_bytes(sound_file(sine(1000, 1.0, 8000), 8000)), None),
    "surround_96_khz.flac": (_bytes(sound_file(_SURROUND, 96_000, "FLAC")), None),
    "flac_named.wav": (_bytes(sound_file(_SECOND, RATE, "FLAC")), None),
    "m4a_named.mp3": (lambda path: write_sound(path.with_suffix(".m4a"), _SECOND).rename(path), None),
    "silent.wav": (_bytes(sound_file(np.zeros(RATE), RATE)), "the sound is silent"),
    "cut_off.wav": (_bytes(cut(sound_file(sine(1000, 3.0, RATE), RATE))), "cut off: 1.5 s of 3.0 s"),
    "cut_off.m4a": (_cut_m4a, "begins as MP4, but is cut off"),
    "picture_named.wav": (_bytes(picture_file(QUARTERS)), "not a sound file"),
    "empty.wav": (_bytes(b""), "the file is empty, 0 bytes"),
}

_TIMES = np.arange(75) / 25  # three seconds
_UNEVEN = np.concatenate([np.arange(25) / 50, 0.5 + np.arange(25) / 10])
_LONG = sine(1000, 3.0, RATE)


def _video(
    times: Sequence[float] = _TIMES,
    sound: np.ndarray | None = _LONG,
    suffix: str = "",
    part: float = 1.0,
    **options: Any,
) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        written = write_video(path.with_suffix(suffix or path.suffix), times, sound, **options)
        content = cut(written.read_bytes(), part)
        written.unlink()
        path.write_bytes(content)

    return write


def _without_picture(path: Path) -> None:
    write_sound(path.with_suffix(".m4a"), _LONG).rename(path)


VIDEOS: Makers = {
    "good.mp4": (_video(), None),
    "good.webm": (_video(sound=sine(1000, 3.0, 48_000), rate=48_000), None),
    "good.mkv": (_video(), None),
    "good.avi": (_video(), None),
    "uneven.mp4": (_video(_UNEVEN), None),
    "turned.mp4": (_video(rotation=90), None),
    "three_frames.mp4": (_video([0, 0.04, 0.08], sine(1000, 0.12, RATE)), None),
    "mono_8_khz.mkv": (_video(sound=sine(1000, 3.0, 8000), rate=8000), None),
    "eight_channels.mkv": (_video(sound=np.tile(_LONG[:, None], 8), sound_codec="aac"), None),
    "surround_96_khz.mkv": (_video(sound=np.tile(_SURROUND, (3, 1)), rate=96_000), None),
    "webm_named.mp4": (_video(sound=sine(1000, 3.0, 48_000), rate=48_000, suffix=".webm"), None),
    "without_sound.mp4": (_video(sound=None), "no audio stream"),
    "without_picture.mp4": (_without_picture, "no video stream"),
    "silent.mp4": (_video(sound=np.zeros(3 * RATE)), "the sound is silent"),
    "cut_off.mp4": (_video(part=0.5), "begins as MP4, but is cut off"),
    "cut_off_with_index.mp4": (_video(part=0.5, options={"movflags": "+faststart"}), "cut off: "),
    "cut_off.mkv": (_video(part=0.5), "cut off: "),
    "encrypted.mp4": (_video(options={
        "encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16,
    }), "encrypted (DRM)"),
    "empty.mp4": (_bytes(b""), "the file is empty, 0 bytes"),
    "picture_named.mp4": (_bytes(picture_file(QUARTERS)), "of no known type"),
    "play_list_named.mp4": (_bytes(b"#EXTM3U\n#EXTINF:2,\ngood.mp4\n#EXT-X-ENDLIST\n"), "of no known type"),
}  # fmt: skip

ZOO = {"pictures": PICTURES, "sounds": SOUNDS, "videos": VIDEOS}


def write_zoo(folder: Path, *kinds: str) -> dict[str, str | None]:
    """Writes the zoo into the sub-folders pictures, sounds and videos, or some of them.

    Returns:
        path of each file from the folder on, to the words of the reason why it cannot be used (a video: with its
        sound); None: it can be.
    """
    reasons = {}
    for kind in kinds or tuple(ZOO):
        (folder / kind).mkdir(parents=True)
        for name, (write, reason) in ZOO[kind].items():
            write(folder / kind / name)
            reasons[f"{kind}/{name}"] = reason
    return reasons
