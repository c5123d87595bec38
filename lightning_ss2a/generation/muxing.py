"""Puts a sound into a video: the pictures are copied as they are, bit for bit."""

import heapq
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.media.containers import best_stream, open_container, packets
from lightning_ss2a.perception.packages import media_package

CODECS = {".mp4": "aac", ".m4v": "aac", ".mov": "aac", ".mkv": "aac", ".webm": "libopus"}
"""Codec of the sound, by the video's suffix; other containers become Matroska, which holds any pictures."""
OTHERS = ".mkv"
SAME_BYTES = {"fflags": "bitexact"}
"""Has no streams and files numbered at random, as Matroska's are."""
_OPUS_RATE = 48_000
"""Samples per second that Opus takes."""


def muxed_suffix(video: Path) -> str:
    """Tells the suffix of the file that a video with another sound becomes."""
    suffix = video.suffix.lower()
    return suffix if suffix in CODECS else OTHERS


def mux(video: Path, waveform: np.ndarray, sample_rate: int, comment: str) -> bytes:
    """Makes a video of another's pictures and a sound, which starts with the first frame.

    Args:
        video: the file.
        waveform: mono, float32 [samples], within -1 to 1.
        sample_rate: samples per second.
        comment: how the sound was made; stands in the file's metadata.

    Returns:
        the file, of the container that :func:`muxed_suffix` names.

    Raises:
        InputError: the video cannot be read, or its pictures cannot be copied.
    """
    av = media_package("av")
    suffix = muxed_suffix(video)
    format_name = {".mkv": "matroska", ".webm": "webm", ".mov": "mov"}.get(suffix, "mp4")
    content = io.BytesIO()
    try:
        with open_container(video, str(video), "a video") as source:
            pictures = best_stream(source, "video", str(video))
            if pictures is None:
                raise InputError(f"{video}: no video stream")
            with av.open(content, "w", format=format_name, container_options=SAME_BYTES) as target:
                target.metadata["comment"] = comment
                copied = target.add_stream_from_template(pictures)
                sound = target.add_stream(CODECS.get(suffix, "aac"), rate=_rate(suffix, sample_rate), layout="mono")
                start = float((pictures.start_time or 0) * pictures.time_base)
                shown = _with_decoding_times([packet for packet in packets(source, pictures) if packet.size], video)
                for packet in shown:
                    packet.stream = copied
                heard = [*_encoded(sound, _frames(av, waveform, sample_rate, sound, start))]
                # One beside the other, as players read them: of its own accord FFmpeg waits 10 s for the other stream.
                for packet in heapq.merge(shown, heard, key=lambda packet: packet.dts * packet.time_base):
                    target.mux(packet)
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{video}: its pictures cannot be copied beside a sound ({one_line(error)})") from error
    return content.getvalue()


def _with_decoding_times(pictures: list[Any], video: Path) -> list[Any]:
    """Gives pictures that only say when they are shown a time of decoding: in their order, and no later than shown.

    Matroska has none where pictures are stored in another order than they are shown in, and what writes files needs it.

    Raises:
        InputError: one has neither time.
    """
    if all(packet.dts is not None for packet in pictures):
        return pictures
    if any(packet.pts is None for packet in pictures):
        raise InputError(f"{video}: its pictures cannot be copied beside a sound (they do not say when they are shown)")
    times = sorted(packet.pts for packet in pictures)
    before = max(time - packet.pts for time, packet in zip(times, pictures, strict=True))
    for time, packet in zip(times, pictures, strict=True):
        packet.dts = time - before
    return pictures


def _encoded(sound: Any, frames: Iterator[Any]) -> Iterator[Any]:
    for frame in frames:
        yield from sound.encode(frame)
    yield from sound.encode(None)


def _rate(suffix: str, sample_rate: int) -> int:
    return _OPUS_RATE if CODECS.get(suffix) == "libopus" else sample_rate


def _frames(av, waveform: np.ndarray, sample_rate: int, sound, start: float):  # type: ignore[no-untyped-def]
    """Gives the sound in frames of the encoder's rate, size and format."""
    whole = av.AudioFrame.from_ndarray(waveform[None].astype(np.float32), format="fltp", layout="mono")
    whole.sample_rate, whole.pts = sample_rate, round(start * sample_rate)
    size = sound.codec_context.frame_size or 1024
    resampler = av.AudioResampler(sound.format, "mono", sound.rate, frame_size=size)
    yield from (*resampler.resample(whole), *resampler.resample(None))
