"""Reads videos: even frames and the sound of a clip, from one decode of its file."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.containers import (
    SoundTrack,
    best_stream,
    decoded,
    decoder_name,
    open_container,
    packets,
    promised_seconds,
    time_of,
)
from lightning_ss2a.perception.media.files import LONGEST_SIDE
from lightning_ss2a.perception.media.svg import MOST_PIXELS
from lightning_ss2a.perception.media.waveform import check_whole, resample
from lightning_ss2a.perception.packages import media_package

_BEFORE = 0.5
"""Seconds before a clip from which decoding starts, so that a decoder of sound has settled when the clip begins."""
_REORDERING = 1.0
"""Seconds by which packets of a video may be out of the order of presentation, at most."""
_ONE_FRAME = 0.04
"""Seconds of the only frame of a video, where the file does not say."""
_SAME_TIME = 1e-6
"""Seconds; a frame presented so little after a moment is the one of that moment."""


@dataclass(frozen=True)
class Clip:
    """What was read of a video.

    Attributes:
        frames: RGB, upright, uint8 [frames, height, width, 3].
        timestamps: the moment that each frame stands for, float32 [frames]: seconds from the start of the clip.
        presented: when each frame came on the screen, float32 [frames]: at or before its moment, but for moments
            before the first frame; equal where one frame stands for several moments.
        seconds: length of the clip.
        waveform: its sound, mono, float32 [samples], from the start of the clip on; None: there is none to use.
        no_sound: why there is no waveform; empty if there is.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    presented: np.ndarray
    seconds: float
    waveform: np.ndarray | None
    no_sound: str


@runtime_checkable
class VideoReader(Protocol):
    """Reads clips of videos.

    Attributes:
        decoder: the decoding library, its version and what else decides about pixels, for manifests: decoders differ.
    """

    @property
    def decoder(self) -> str:
        """The decoding library, its version and what else decides about pixels."""

    def read(
        self,
        path: Path,
        *,
        frames: int = 1,
        sample_rate: int | None = None,
        window: tuple[float, float] | None = None,
        name: str | None = None,
    ) -> Clip:
        """Reads frames and sound of a clip.

        Args:
            path: the file.
            frames: how many, even over the clip: each is what the screen shows at the centre of one of so many equal
                parts, so that 1 is the central frame.
            sample_rate: samples per second of the waveform; None: the sound is not read.
            window: seconds (start, end) of the clip; None: all of the video.
            name: the file's name, for messages; default: the path.

        Raises:
            InputError: the file is no video that can be used; says why. A sound that cannot be used is no error.
        """


class PyAVReader:
    """Reads clips with PyAV (FFmpeg).

    Time is counted from the first frame of the video, by presentation timestamps, so that any frame rate, even or not,
    is the same to it. The clip ends with the window or with the video, whichever comes first. It is cut into as many
    equal parts as frames are wanted; a frame is what the screen shows at the centre of its part: the last one presented
    at or before it (the first one, before any). A video of fewer frames repeats them.

    Frames stand upright (the file's display matrix) and have square pixels; longer sides shrink to ``longest_side``.
    Only wanted frames are converted, and before the key frame that the first one needs nothing is decoded. Frames that
    are damaged are left out; a file that ends before its header says is refused (see :func:`.waveform.check_whole`).

    Args:
        longest_side: pixels of a frame's longer side, at most.
        threads: of the decoder, for one video; 0: as many as there are cores.

    Attributes:
        decoder: PyAV and libavcodec with their versions, and the longest side.
    """

    def __init__(self, longest_side: int = LONGEST_SIDE, threads: int = 1) -> None:
        if longest_side < 1 or threads < 0:
            raise InputError(f"longest_side needs at least 1, threads at least 0, found {longest_side} and {threads}")
        self.longest_side, self.threads = longest_side, threads

    @property
    def decoder(self) -> str:
        """PyAV and libavcodec with their versions, and the longest side."""
        return f"{decoder_name()}, frames of at most {self.longest_side} pixels"

    def read(
        self,
        path: Path,
        *,
        frames: int = 1,
        sample_rate: int | None = None,
        window: tuple[float, float] | None = None,
        name: str | None = None,
    ) -> Clip:
        """Reads frames and sound of a clip; see :class:`VideoReader`."""
        name = name or str(path)
        if frames < 1:
            raise InputError(f"{name}: frames must be at least 1, found {frames}")
        span = _span(path, window, name)
        moments = span.start + (np.arange(frames) + 0.5) / frames * (span.end - span.start)
        with open_container(path, name, "a video") as container:
            video = _video_stream(container, name)
            video.codec_context.thread_count = self.threads
            shown = _Shown(moments, self.longest_side, float(video.sample_aspect_ratio or 1))
            sound = _Sound(container, span, name) if sample_rate else None
            if span.seek:
                _seek(container, span.start)
            _decode(container, video, shown, sound, span.first_needed(moments[0]), name)
        if not shown.frames:
            raise InputError(f"{name}: none of its frames can be decoded")
        waveform, no_sound = sound.waveform(sample_rate) if sound and sample_rate else (None, "not asked for")
        return Clip(
            np.stack(shown.frames),
            (moments - span.start).astype(np.float32),
            (np.array(shown.presented) - span.start).astype(np.float32),
            span.end - span.start,
            waveform,
            no_sound,
        )


@dataclass(frozen=True)
class _Span:
    """What of a container is read, in seconds of its own clock.

    Attributes:
        start: of the clip.
        end: of the clip.
        key_frames: times of the video's key frames.
        seek: whether its packets are looked up, instead of read from the beginning of the file on.
    """

    start: float
    end: float
    key_frames: tuple[float, ...]
    seek: bool

    def first_needed(self, moment: float) -> float:
        """When the key frame is presented from which on frames must be decoded, to show what is there at a moment."""
        return max((time for time in self.key_frames if time <= moment), default=-math.inf)


def _span(path: Path, window: tuple[float, float] | None, name: str) -> _Span:
    """Finds the clip in its file, from the beginning on where looking it up missed its key frame (MPEG-TS)."""
    seek = window is not None and window[0] > _BEFORE
    span = _measure(path, window, seek, name)
    missed = seek and span.first_needed(span.start) == -math.inf
    return _measure(path, window, False, name) if missed else span


def _measure(path: Path, window: tuple[float, float] | None, seek: bool, name: str) -> _Span:
    """Finds start, end and key frames of the clip in the packets of the file, which are not decoded."""
    with open_container(path, name, "a video") as container:
        video = _video_stream(container, name)
        origin = float((video.start_time or 0) * video.time_base)
        start, stop = (origin, math.inf) if window is None else (origin + window[0], origin + window[1])
        if seek:
            _seek(container, start)
        latest, times, key_frames = -math.inf, [], []
        for packet in packets(container):
            time = time_of(packet)
            if time is None or packet.is_discard:
                continue
            if packet.stream == video:
                times.append((time, float((packet.duration or 0) * packet.time_base)))
                if packet.is_keyframe:
                    key_frames.append(time)
                if time > stop + _REORDERING:
                    break
            latest = max(latest, time + float((packet.duration or 0) * packet.time_base))
        first, promised = (container.start_time or 0) / 1_000_000, promised_seconds(container)
    end = _last_end(times)
    latest = max(latest, end)
    if promised is not None:
        check_whole(min(latest, stop) - first, min(first + promised, stop) - first, name)
    if end <= start:
        raise InputError(f"{name}: no frame of the video is in the clip" + ("" if window is None else _of(window)))
    return _Span(start, min(end, stop), tuple(key_frames), seek)


def _last_end(times: list[tuple[float, float]]) -> float:
    """When the last frame ends, of (time, duration) in any order; one without a duration lasts as long as most do."""
    if not times:
        return -math.inf
    last, duration = max(times)
    mean = (last - min(times)[0]) / max(1, len(times) - 1)
    return last + (duration or mean or _ONE_FRAME)


def _video_stream(container: Any, name: str) -> Any:
    video = best_stream(container, "video", name)
    if video is None:
        raise InputError(f"{name}: no video stream")
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > MOST_PIXELS:
        raise InputError(f"{name}: frames of {width} x {height} pixels, more than {MOST_PIXELS}")
    return video


def _seek(container: Any, start: float) -> None:
    """Goes to a key frame some time before; where a container cannot, it is read from its beginning."""
    with suppress(media_package("av").FFmpegError):
        container.seek(math.floor((start - _BEFORE) * 1_000_000), backward=True)


def _decode(container: Any, video: Any, shown: "_Shown", sound: "_Sound | None", needed: float, name: str) -> None:
    """Decodes what is needed of the clip, once."""
    audio = sound.stream if sound else None
    waiting = True  # for the key frame
    for packet in packets(container, *filter(None, (video, audio))):
        if packet.stream == audio and sound:
            sound.add(packet)
        elif packet.stream == video and not shown.is_done:
            time = time_of(packet)
            waiting = waiting and time is not None and not (packet.is_keyframe and time >= needed)
            if not waiting:
                for frame in decoded(packet, name):
                    shown.add(frame)
        if shown.is_done and (sound is None or sound.is_done):
            break
    shown.finish()


class _Shown:
    """Picks, of frames that come in the order of their presentation, those shown at some moments.

    Args:
        moments: seconds of the container's clock, rising.
        longest_side: pixels, at most.
        pixel_aspect: width of a pixel by its height.
    """

    def __init__(self, moments: np.ndarray, longest_side: int, pixel_aspect: float) -> None:
        self.frames: list[np.ndarray] = []
        self.presented: list[float] = []
        self._moments, self._longest_side, self._pixel_aspect = moments, longest_side, pixel_aspect
        self._scaler = media_package("av.video.reformatter").VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._held: Any = None
        self._pixels: np.ndarray | None = None  # of the frame that is held, once it was wanted

    @property
    def is_done(self) -> bool:
        """Whether every moment has its frame."""
        return len(self.frames) == len(self._moments)

    def add(self, frame: Any) -> None:
        """Takes the next frame; the one before is what was shown until now."""
        if frame.time is None or frame.is_corrupt:
            return
        if self._held is not None:
            self._show_until(frame.time - _SAME_TIME)
        self._held, self._pixels = frame, None

    def finish(self) -> None:
        """Shows the last frame for the moments that are left."""
        if self._held is not None:
            self._show_until(math.inf)

    def _show_until(self, time: float) -> None:
        while not self.is_done and self._moments[len(self.frames)] < time:
            if self._pixels is None:
                self._pixels = self._upright(self._held)
            self.frames.append(self._pixels)
            self.presented.append(self._held.time)

    def _upright(self, frame: Any) -> np.ndarray:
        width, height = self._size = self._size or self._fit(frame)
        pixels = self._scaler.reformat(frame, width, height, "rgb24", interpolation="AREA").to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))

    def _fit(self, frame: Any) -> tuple[int, int]:
        width, height = frame.width * self._pixel_aspect, frame.height
        scale = min(1.0, self._longest_side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))


class _Sound:
    """The sound of a clip, or why there is none."""

    def __init__(self, container: Any, span: _Span, name: str) -> None:
        self.stream, self.problem = None, ""
        self._track = SoundTrack(span.start, span.end, name)
        try:
            self.stream = best_stream(container, "audio", name)
        except InputError as error:
            self.problem = str(error)
        else:
            self.problem = "" if self.stream else f"{name}: no audio stream"

    @property
    def is_done(self) -> bool:
        """Whether nothing more of it is needed."""
        return bool(self.problem) or self._track.is_full

    def add(self, packet: Any) -> None:
        """Decodes a packet of it."""
        if self.is_done:
            return
        try:
            for frame in decoded(packet, self._track.name):
                self._track.add(frame)
        except InputError as error:
            self.problem = str(error)

    def waveform(self, sample_rate: int) -> tuple[np.ndarray | None, str]:
        """Gives (waveform at the wanted rate, "") or (None, why not)."""
        if not self.problem and not self._track.rate:
            self.problem = f"{self._track.name}: none of its sound can be decoded"
        if self.problem:
            return None, self.problem
        try:
            return resample(self._track.waveform(), self._track.rate, sample_rate, self._track.name), ""
        except InputError as error:
            return None, str(error)


def _of(window: tuple[float, float]) -> str:
    return f" from {window[0]:g} s to {window[1]:g} s"
