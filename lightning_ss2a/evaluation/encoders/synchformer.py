"""Asks an exported Synchformer (Iashin et al. 2024) how far a sound is off its video; brings none of its code."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.evaluation.encoders.checkpoint import SAMPLE_RATE, as_tensor
from lightning_ss2a.evaluation.encoders.video_frames import frames_at
from lightning_ss2a.metrics.functional.offset import OFFSETS, WINDOW
from lightning_ss2a.perception.encoders.running import LoadedWhenUsed, usable_device
from lightning_ss2a.perception.encoders.torch_files import is_torchscript
from lightning_ss2a.perception.identity import identify
from lightning_ss2a.perception.media.video import PyAVReader, VideoReader
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import ModelCard, WeightsStatus, files_at, find_weights, obtain_weights

PART, MODEL = "Synchformer", "synchformer-export"
FILE = "synchformer.pt"
FRAME_RATE = 25
SEGMENT_FRAMES, STEP_FRAMES = 16, 8
SEGMENT_SAMPLES, STEP_SAMPLES = (frames * SAMPLE_RATE // FRAME_RATE for frames in (SEGMENT_FRAMES, STEP_FRAMES))
SHORTEST = (SEGMENT_FRAMES + (WINDOW - 1) * STEP_FRAMES) / FRAME_RATE
"""Seconds of 14 segments: 4.8."""
RESIZED, SIDE = 256, 224
"""Pixels of a frame's shorter side, and of the square that is cut out of its middle."""
LONGEST_SIDE = 640
"""Pixels of a frame as it is decoded."""
FFT, MEL_WINDOW, MEL_HOP, MEL_BANDS, MEL_FRAMES = 1024, 400, 160, 128, 66
LEAST_POWER = 1e-6
MEL_MEAN, MEL_STD = -4.2677393, 4.5689974
"""Of AudioSet's log-mel values; they are divided by twice the second."""

_Network = Callable[[Tensor, Tensor], Tensor]


class Synchformer(LoadedWhenUsed):
    """Gives Synchformer's logits of 21 offsets, -2 to 2 s, in the first and the last 4.8 s of a video.

    It needs an export of the checkpoint ``24-01-04T16-39-21``, made in the authors' repository with their weights: a
    function of ``vis``, float32 [1, 14, 16, 3, 224, 224], and ``aud``, float32 [1, 14, 1, 128, 66], that returns the
    logits, [1, 21]; docs/evaluation_encoders.md shows how. A positive offset means that the sound is early.

    The accuracy that the authors measured depends on the decoder of videos, which is part of the identity: take numbers
    of one decoder only. A longer sound than its video is cut at the end.

    Args:
        path: the export, TorchScript or ONNX (``.onnx``), or the folder that holds ``synchformer.pt``.
        device: where TorchScript runs; ONNX runs on the CPU.
        threads: of ONNX.
        reader: of videos; None: PyAV, frames of at most 640 pixels.

    Raises:
        InputError: once used: a package or the file is missing or not what it should be.
    """

    sample_rate: int = SAMPLE_RATE
    offsets: tuple[float, ...] = OFFSETS

    def __init__(
        self, path: str | None = None, device: str = "cpu", threads: int = 1, reader: VideoReader | None = None
    ) -> None:
        self.path, self.device, self.threads = path, device, threads
        self._reader = reader or PyAVReader(longest_side=LONGEST_SIDE)

    def describe(self) -> ModelCard:
        """Says what it is and where its file is looked for; loads nothing."""
        note = "an export that you make: seconds that a sound is off its video; each decoder of videos gives others"
        return ModelCard(PART, MODEL, "MIT", find_weights(PART, *self._place()), note)

    def load(self) -> None:
        """See :meth:`~lightning_ss2a.perception.weights.Loadable.load`."""
        _ = self._network, self._mel

    @cached_property
    def identity(self) -> str:
        """The export, the preparation and the decoder of videos."""
        return identify(MODEL, self._weights.sha256() or "", f"bicubic{RESIZED}-crop{SIDE}-v1 ({self._reader.decoder})")

    def offset_logits(self, waveforms: Sequence[np.ndarray], videos: Sequence[Path]) -> Tensor:
        """Gives logits of the offsets in the first and in the last 14 segments: float32 [items, 2, 21].

        Args:
            waveforms: mono, 16 kHz, float32 [samples] each; as many as videos.
            videos: the files.

        Raises:
            InputError: a video cannot be read, or it or its sound is shorter than 4.8 s; names it.
        """
        found = [self._judge(*pair) for pair in zip(waveforms, videos, strict=True)]
        return torch.stack(found) if found else torch.empty(0, 2, len(OFFSETS))

    @torch.inference_mode()
    def _judge(self, waveform: np.ndarray, video: Path) -> Tensor:
        frames = torch.from_numpy(frames_at(self._reader, video, FRAME_RATE, len(waveform) / SAMPLE_RATE))
        sound = as_tensor(waveform)
        count = min(_segments(len(frames), SEGMENT_FRAMES), _segments(len(sound), SEGMENT_SAMPLES))
        if count < WINDOW:
            seconds = min(len(frames) / FRAME_RATE, len(sound) / SAMPLE_RATE)
            raise InputError(f"{video}: {seconds:g} s of picture and sound, needs {SHORTEST:g} s")
        return torch.cat([self._logits(frames, sound, first) for first in (0, count - WINDOW)])

    def _logits(self, frames: Tensor, sound: Tensor, first: int) -> Tensor:
        """Asks about 14 segments from a given one on: uint8 [frames, height, width, 3] and [samples] to [1, 21]."""
        start, length = first * STEP_FRAMES, round(SHORTEST * FRAME_RATE)
        pixels = prepare_frames(frames[start : start + length].permute(0, 3, 1, 2))
        vis = pixels.unfold(0, SEGMENT_FRAMES, STEP_FRAMES).permute(0, 4, 1, 2, 3)  # [14, 16, 3, 224, 224]
        start, length = first * STEP_SAMPLES, round(SHORTEST * SAMPLE_RATE)
        aud = self._spectrograms(sound[start : start + length].unfold(0, SEGMENT_SAMPLES, STEP_SAMPLES))
        try:
            logits = self._network(vis[None].contiguous(), aud[None])
        except Exception as error:  # those of the network's runtime have no common class
            raise InputError(f"{PART}: {self._weights.location}: cannot be run ({one_line(error)[:200]})") from error
        if tuple(logits.shape) != (1, len(OFFSETS)):
            raise InputError(
                f"{PART}: {self._weights.location}: gives {list(logits.shape)}, needs [1, {len(OFFSETS)}]: the logits"
            )
        return logits.float().cpu()

    def _spectrograms(self, segments: Tensor) -> Tensor:
        """Computes log-mel spectrograms: [segments, 10240] to [segments, 1, 128, 66]."""
        logarithm = (self._mel(segments) + LEAST_POWER).log()  # 65 frames
        padded = pad(logarithm, (0, MEL_FRAMES - logarithm.shape[-1]))  # zeros of the logarithm, as in training
        return ((padded - MEL_MEAN) / (2 * MEL_STD))[:, None]

    @cached_property
    def _mel(self) -> Any:
        transforms = media_package("torchaudio.transforms", extra="evaluation")
        return transforms.MelSpectrogram(SAMPLE_RATE, FFT, MEL_WINDOW, MEL_HOP, n_mels=MEL_BANDS)

    def _place(self) -> tuple[str | None, str, tuple[str, ...]]:
        return self.path, "", files_at(self.path, (FILE,))

    @cached_property
    def _weights(self) -> WeightsStatus:
        return obtain_weights(PART, *self._place())

    @cached_property
    def _network(self) -> _Network:
        file = self._weights.location
        if file.suffix == ".onnx":
            return _open_onnx(file, self.threads)
        if not is_torchscript(file):
            raise InputError(
                f"{PART}: {file}: neither TorchScript nor .onnx; a checkpoint alone has no code, so export it"
            )
        device = usable_device(self.device)
        try:
            network = torch.jit.load(file, map_location=device).eval()
        except RuntimeError as error:
            raise InputError(f"{PART}: {file}: damaged TorchScript ({one_line(error)[:200]})") from error
        return lambda vis, aud: _last(network(vis.to(device), aud.to(device)))


def _segments(length: int, segment: int) -> int:
    """Counts the segments in a length, each half a segment after the one before."""
    return max(0, (length - segment) // (segment // 2) + 1)


def prepare_frames(frames: Tensor) -> Tensor:
    """Brings frames to what Synchformer sees: uint8 [frames, 3, height, width] to -1..1, [frames, 3, 224, 224]."""
    height, width = frames.shape[-2:]
    scale = RESIZED / min(height, width)
    size = [max(SIDE, round(side * scale)) for side in (height, width)]
    pixels = interpolate(frames.float(), size, mode="bicubic", antialias=True).clamp(0, 255) / 255
    top, left = (round((side - SIDE) / 2) for side in size)
    return (pixels[..., top : top + SIDE, left : left + SIDE] - 0.5) / 0.5


def _open_onnx(file: Path, threads: int) -> _Network:
    runtime = media_package("onnxruntime", extra="evaluation")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no common class
        raise InputError(f"{PART}: {file}: not an ONNX model ({one_line(error)[:200]})") from error
    names = [each.name for each in session.get_inputs()]
    if len(names) != 2:
        raise InputError(f"{PART}: {file}: has inputs {', '.join(names)}; needs two, vis and aud")
    return lambda vis, aud: torch.from_numpy(
        session.run(None, dict(zip(names, (vis.numpy(), aud.numpy()), strict=True)))[-1]
    )


def _last(result: Any) -> Tensor:
    """Takes the logits out of what the authors' module returns: (loss, logits)."""
    return result[-1] if isinstance(result, tuple | list) else result
