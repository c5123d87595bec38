"""Opens containers of video and sound (MP4, Matroska, WebM, AVI, …) with PyAV, and decodes their sound.

What a file is, its content says, never its name. Only the containers listed here are opened: others, such as play
lists, would have FFmpeg read further files or addresses.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.media.waveform import check_samples, check_whole, mean_of_channels
from lightning_ss2a.perception.packages import media_package

VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".wmv",
    ".flv",
    ".mpg",
    ".mpeg",
    ".ts",
    ".3gp",
    ".ogv",
)
CONTAINERS = (
    "mov", "matroska", "avi", "asf", "flv", "mpegts", "mpeg", "ogg", "aac", "ac3", "eac3", "amr", "wav", "w64", "caf",
    "mp3",
)  # fmt: skip
"""FFmpeg's names; ``mov`` is MP4 and M4A, too, ``matroska`` WebM, ``asf`` WMA and WMV."""

_TELL_LENGTH = ("mov", "matroska", "avi", "asf", "flv")
"""Containers whose header says how long they are; that of others is FFmpeg's guess."""
_HEADS = (
    (4, b"ftyp", "MP4"), (4, b"moov", "MP4"), (4, b"mdat", "MP4"), (4, b"wide", "MP4"), (4, b"free", "MP4"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"), (0, b"RIFF", "WAV or AVI"), (0, b"OggS", "Ogg"), (0, b"FLV", "FLV"),
    (0, b"\x30\x26\xb2\x75", "WMA or WMV"), (0, b"\0\0\1\xba", "MPEG"), (0, b"caff", "CAF"), (0, b"#!AMR", "AMR"),
    (0, b"\x0b\x77", "AC-3"), (0, b"\xff\xf1", "AAC"), (0, b"\xff\xf9", "AAC"), (0, b"\x47", "MPEG-TS"),
    (0, b"ID3", "MP3"),
)  # fmt: skip
"""(position, bytes there, kind) of how files of these containers begin."""
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
"""Of FFmpeg's sample formats, without the p of planar ones."""
_GAP = 0.1
"""Seconds; a longer hole in a sound stays a hole, a shorter one is inaccurate time keeping."""


def decoder_name() -> str:
    """Names the decoding library: ``PyAV 18.1.0, libavcodec 62.28.102``.

    Raises:
        InputError: PyAV is not installed.
    """
    av = media_package("av")
    return f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def container_kind(head: bytes) -> str | None:
    """Tells from the first bytes of a file which container it seems to be; None: none of those that are opened."""
    return next((kind for position, mark, kind in _HEADS if head[position:].startswith(mark)), None)


@contextmanager
def open_container(source: Path | bytes, name: str, what: str) -> Iterator[Any]:
    """Opens a container for reading.

    Args:
        source: the file, or its content.
        name: its name, for messages.
        what: what it should be, for messages: ``a video``.

    Yields:
        PyAV's container.

    Raises:
        InputError: there is no such file, it is empty, or no container that is known and whole enough to be opened.
    """
    av = media_package("av")
    with _open_file(source, name) as file:
        head = file.read(64)
        if not head:
            raise InputError(f"{name}: not {what} (the file is empty, 0 bytes)")
        file.seek(0)
        try:
            # Python reads the file, not FFmpeg, to which some names are addresses.
            container = av.open(
                _Seekable(file), metadata_errors="replace", options={"format_whitelist": ",".join(CONTAINERS)}
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{name}: not {what} ({_why_not(head)})") from error
        with container:
            yield container


def best_stream(container: Any, kind: str, name: str) -> Any | None:
    """Finds the stream of a kind, ``video`` or ``audio``, that a player would choose; None: there is none.

    A cover picture is no video.

    Raises:
        InputError: there is one, of a codec that this FFmpeg cannot decode.
    """
    av = media_package("av")
    streams = [
        stream
        for stream in getattr(container.streams, kind)
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        return None
    best = container.streams.best(kind)
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise InputError(f"{name}: its {kind} is of a codec that cannot be decoded (unknown, or protected)")
    return stream


def sound_rate(path: Path, name: str) -> int:
    """Tells how many samples per second the sound of a file has, by its header.

    Raises:
        InputError: it is no container that is known, or has no sound that can be decoded.
    """
    with open_container(path, name, "a video") as container:
        stream = best_stream(container, "audio", name)
        if stream is None or not stream.codec_context.sample_rate:
            raise InputError(f"{name}: no audio stream")
        return int(stream.codec_context.sample_rate)


def packets(container: Any, *streams: Any) -> Iterator[Any]:
    """Reads the packets of some streams, to the end or to where the file is damaged beyond reading."""
    av = media_package("av")
    reading = container.demux(*streams)
    while True:
        try:
            yield next(reading)
        except IndexError:  # a stream that is announced in the middle of the file, which PyAV does not know: go on
            reading = container.demux(*streams)
        except (StopIteration, av.FFmpegError):
            return


def decoded(packet: Any, name: str) -> list[Any]:
    """Decodes a packet; one that is damaged gives nothing.

    Raises:
        InputError: it is encrypted.
    """
    if packet.has_sidedata("encryption_info"):
        raise InputError(f"{name}: encrypted (DRM)")
    try:
        return packet.decode()
    except media_package("av").FFmpegError:
        return []


def time_of(packet: Any) -> float | None:
    """When a packet is presented, in seconds of its container's own clock; None: it does not say."""
    ticks = packet.dts if packet.pts is None else packet.pts
    return None if ticks is None else float(ticks * packet.time_base)


def promised_seconds(container: Any) -> float | None:
    """How long the container's header says that it is; None: it does not say."""
    tells = any(kind in container.format.name.split(",") for kind in _TELL_LENGTH)
    return container.duration / 1_000_000 if tells and container.duration else None


class SoundTrack:
    """Gathers decoded sound, mono, from a time on.

    The first frame stands at its own time, after silence if need be, and what is before the start is left out. Those
    after it follow one another; a hole of more than 0.1 s is filled with silence.

    Args:
        start: seconds of the container's clock.
        end: likewise; later sound is left out. None: all of it.
        name: the file's name, for messages.
    """

    def __init__(self, start: float, end: float | None, name: str) -> None:
        self.start, self.end, self.name = start, end, name
        self.rate = 0
        self._parts: list[np.ndarray] = []
        self._next: int | None = None  # the sample, counted from the start, where the next frame goes on

    def add(self, frame: Any) -> None:
        """Adds a decoded frame of sound.

        Raises:
            InputError: the sound is too long, or changes its rate.
        """
        self.rate = self.rate or frame.sample_rate
        if frame.sample_rate != self.rate:
            raise InputError(
                f"{self.name}: the sound changes from {self.rate} to {frame.sample_rate} samples per second; convert it"
            )
        at = self._next if frame.time is None else round((frame.time - self.start) * self.rate)
        if self._next is None or (at is not None and at - self._next > _GAP * self.rate):
            self._be_silent_until(at or 0)
        if not self.is_full:
            samples = _samples(frame)
            check_samples((max(0, self._next or 0) + len(samples)) * samples.shape[1], self.name)
            self._parts.append(mean_of_channels(samples)[max(0, -(self._next or 0)) :])
            self._next = (self._next or 0) + len(samples)

    def _be_silent_until(self, sample: int) -> None:
        reached = sample if self.end is None else min(sample, self._wanted())
        hole = max(0, reached - max(0, self._next or 0))
        check_samples(hole, self.name)
        self._parts.append(np.zeros(hole, np.float32))
        self._next = sample

    @property
    def is_full(self) -> bool:
        """Whether the sound reaches to the end."""
        return self.end is not None and self._next is not None and self._next >= self._wanted()

    def waveform(self) -> np.ndarray:
        """Gives the sound at its own rate: float32 [samples]."""
        whole = np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        return whole if self.end is None else whole[: self._wanted()]

    def _wanted(self) -> int:
        return round(((self.end or 0) - self.start) * self.rate)


def decode_sound(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Decodes the sound in a container: of a sound file such as M4A, or of a video.

    Args:
        data: the file.
        name: its name, for messages.

    Returns:
        mono waveform, float32 [samples], and its samples per second.

    Raises:
        InputError: it is no known container, has no sound, or its sound cannot be decoded or is cut off.
    """
    with open_container(data, name, "a sound file") as container:
        stream = best_stream(container, "audio", name)
        if stream is None:
            raise InputError(f"{name}: no audio stream")
        start = float((stream.start_time or 0) * stream.time_base)
        track = SoundTrack(start, None, name)
        latest = start
        for packet in packets(container):
            latest = max(latest, (time_of(packet) or latest) + float((packet.duration or 0) * packet.time_base))
            if packet.stream == stream:
                for frame in decoded(packet, name):
                    track.add(frame)
        if (promised := promised_seconds(container)) is not None:
            check_whole(latest - (container.start_time or 0) / 1_000_000, promised, name)
    if not track.rate:
        raise InputError(f"{name}: none of its sound can be decoded")
    return track.waveform(), track.rate


def _open_file(source: Path | bytes, name: str) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        if source.exists() and not source.is_file():
            raise InputError(f"{name}: not a file")  # a folder; or a pipe or device, which may never end
        return source.open("rb")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or one_line(error)})") from error


def _why_not(head: bytes) -> str:
    kind = container_kind(head)
    return f"begins as {kind}, but is cut off, damaged or of another kind" if kind else "of no known type"


def _samples(frame: Any) -> np.ndarray:
    """Gives a frame of sound as float32 [samples, channels], within -1 to 1 as libsndfile scales it.

    PyAV's own ``to_ndarray`` reads memory that is not the frame's where a planar one has 8 channels (PyAV 18: it takes
    pointers to planes for as many as are not null).
    """
    kind, channels = frame.format.name, frame.layout.nb_channels
    dtype = np.dtype(_DTYPES[kind.removesuffix("p")])
    if frame.format.is_planar:
        planes = [np.frombuffer(plane, dtype, frame.samples) for plane in frame.planes[:channels]]
        values = np.stack(planes, axis=1)
    else:
        values = np.frombuffer(frame.planes[0], dtype, frame.samples * channels).reshape(-1, channels)
    if dtype.kind == "u":
        return (values.astype(np.float32) - 128) / 128
    if dtype.kind == "i":
        return (values / -float(np.iinfo(dtype).min)).astype(np.float32)
    return values.astype(np.float32)


class _Seekable:
    """A file that refuses places where there is nothing, as C does: PyAV prints what Python raises instead."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read, self.tell, self.close = file.read, file.tell, file.close

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a place and gives it; -1: there is none."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1
