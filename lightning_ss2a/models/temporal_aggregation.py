"""Temporal aggregation ω: the audio embeddings of a video's frames to the Gaussian of one for all of it (Eq. 10).

Shapes: B videos, T frames, A audio width, D width of the tokens.
Paper: "Temporal Aggregation" and supplement 2.3 (Eq. 11 and 12). Beside ω stand what it is compared with: a linear
aggregator and the mean over frames.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ss2a.errors import InputError
from lightning_ss2a.models.layers.attentive_readout import AttentiveReadout, ReadoutOptions
from lightning_ss2a.models.layers.embeddings import check_sizes, unit_variance
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian

NUM_FRAMES = 64
RESOLUTION = 1024.0


def frame_positions(timestamps: Tensor) -> Tensor:
    """Finds positions t of Eq. 11 and 12: 1..T for evenly spaced frames, fractions between them otherwise.

    t = 1 + (timestamp - first) / spacing with spacing = (last - first) / (T - 1), first and last the least and the
    greatest of the row: positions come from the timestamps alone, not from the order of the frames. Only frames that
    all have one timestamp are counted in their order, 1..T.

    Values are not checked, since that would wait for the device: timestamps that decrease are positions like any
    other, and one that is not finite makes positions of its own row NaN.

    Args:
        timestamps: seconds, ``[B, T]``.

    Returns:
        ``[B, T]`` in float32 or wider.

    Raises:
        ValueError: If ``timestamps`` has not two dimensions.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import frame_positions
        >>> frame_positions(torch.tensor([[0.0, 1.0, 2.0], [5.0, 6.0, 9.0]]))
        tensor([[1.0000, 2.0000, 3.0000],
                [1.0000, 1.5000, 3.0000]])
    """
    if timestamps.ndim != 2:
        raise ValueError(f"timestamps must have shape [videos, frames], got {tuple(timestamps.shape)}")
    timestamps = timestamps.to(torch.promote_types(timestamps.dtype, torch.float32))
    count = timestamps.shape[1]
    in_order = torch.arange(1, count + 1, device=timestamps.device, dtype=timestamps.dtype).expand_as(timestamps)
    if count < 2:
        return in_order
    first = timestamps.amin(1, keepdim=True)
    span = timestamps.amax(1, keepdim=True) - first
    standing = span == 0
    # Multiplied before divided: the spacing of a tiny span would round to 0.
    moving = 1 + (timestamps - first) * (count - 1) / span.masked_fill(standing, 1)
    return torch.where(standing, in_order, moving)


def positional_encoding(positions: Tensor, width: int, resolution: float = RESOLUTION) -> Tensor:
    """Computes sines at even and cosines at odd coordinates of positions (Eq. 11 and 12, ``width`` for 512).

    pos(2i, t) = sin(t / resolution^(2i / width)), pos(2i + 1, t) = cos(t / resolution^(2i / width)). An odd width
    ends with a sine that has no cosine.

    Args:
        positions: t, ``[B, T]`` (any leading dimensions); computed in float32 or wider.
        width: width of the embeddings that it is added to.
        resolution: the slowest wave takes up to 2π · resolution positions.

    Returns:
        ``[B, T, width]``.

    Raises:
        ValueError: If ``width`` is below 1 or ``resolution`` is not positive.
    """
    check_sizes(width=width)
    if not resolution > 0:
        raise ValueError(f"resolution must be positive, got {resolution}")
    positions = positions.to(torch.promote_types(positions.dtype, torch.float32))
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=positions.dtype) / width
    angles = positions.unsqueeze(-1) / resolution**exponents  # [B, T, ceil(width / 2)]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]


@dataclass(frozen=True)
class TemporalAggregatorOptions(ReadoutOptions):
    """Architecture of a ``TemporalAggregator``."""

    GROUP: ClassVar = "model.aggregator"

    def check_width(self, audio_width: int) -> None:
        """Raises InputError for a width that ``published``, which has no input layer, cannot have."""
        if self.variant == "published" and self.width != audio_width:
            raise InputError(
                f"{self.GROUP}.width must be the audio embeddings' {audio_width} with variant=published, which has no "
                f"input layer, found {self.width}"
            )


class TemporalAggregator(AttentiveReadout):
    """Self-attention over a video's frames, each with its position in time, read out by [cls] and two heads.

    A frame's place is its timestamp (see ``frame_positions``): frames shuffled together with their timestamps change
    nothing. A video without frames is no error: it is aggregated from [cls] alone.

    ``published`` takes from the released weights: no input layer, so that D = A; the blocks; a summary token for each
    head; waves over 2 * 1024 in the place of 1024; and positions from 0 that count the two summary tokens as 0 and 1,
    so that frame t of 1..T stands at t + 1. The encoding of the summary tokens is a constant added to what is learned,
    so it is left to them. The defaults of other options stay the paper's: the weights have ``expansion=2``,
    ``head_widths=(D,)`` and ``input_scaling=False``.

    Args:
        audio_width: A, width of a frame's and of the video's embedding (512 for CLAP).
        options: architecture; by default the paper's. Frames of unit variance (``input_scaling``) have the size of the
            encoding that is added.
        num_frames: frames that a video may have.

    Attributes:
        encodes_time: whether a frame's place counts; false in studies of what time is worth.

    Raises:
        ValueError: If a number is not positive.
        InputError: If ``published`` has another width than the embeddings.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import TemporalAggregator
        >>> aggregator = TemporalAggregator(512)
        >>> timestamps = torch.linspace(0, 9.9, 64).expand(2, 64)
        >>> aggregator(torch.randn(2, 64, 512), timestamps).sample().shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        audio_width: int,
        options: TemporalAggregatorOptions = TemporalAggregatorOptions(),
        num_frames: int = NUM_FRAMES,
    ) -> None:
        check_sizes(num_frames=num_frames)
        options.check_width(audio_width)
        super().__init__(audio_width, audio_width, options)
        if options.variant == "published":
            self.input = nn.Identity()
        self.options, self.num_frames = options, num_frames
        self.encodes_time = True
        self.first_position, self.resolution = (1, RESOLUTION) if options.variant == "paper" else (2, 2 * RESOLUTION)

    def forward(self, frames: Tensor, timestamps: Tensor) -> DiagonalGaussian:
        """Aggregates each video's frames.

        A sample of the Gaussian is not a unit vector: L2-normalise what ``sample`` returns, as CLAP's embeddings are.

        Args:
            frames: audio embedding generated for each frame, ``[B, T, A]``. A NaN makes its own video NaN and no other.
            timestamps: seconds, ``[B, T]``; their values are not checked (see ``frame_positions``).

        Returns:
            Gaussian of the video's audio embedding, ``[B, A]``.

        Raises:
            ValueError: If there are more than ``num_frames`` frames, or shapes do not fit.
        """
        _check_frames(frames, timestamps, self.audio_width)
        if frames.shape[1] > self.num_frames:
            raise ValueError(
                f"a video has {frames.shape[1]} frames, at most {self.num_frames} (num_frames): choose which to keep"
            )
        tokens = self.encode(frames, timestamps)
        return self.mix(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def encode(self, frames: Tensor, timestamps: Tensor) -> Tensor:
        """Makes tokens ``[B, T, D]`` before attention; frame by frame."""
        scaled = unit_variance(frames) if self.options.input_scaling else frames
        if not self.encodes_time:
            return self.input(scaled)
        positions = frame_positions(timestamps) + (self.first_position - 1)
        encoding = positional_encoding(positions, self.audio_width, self.resolution)
        return self.input((scaled + encoding).to(frames.dtype))


class LinearAggregator(nn.Module):
    """A learned weight for each frame's place in time: V2A-Mapper's linear setup, as we read it.

    The paper compares ω with "V2A-Mapper's linear setup" (supplement 5.1) and says no more of it; V2A-Mapper's own text
    was not at hand. So the weights are plain numbers, without softmax, and by default start at 1 / T: before training
    this is ``mean_over_frames``. Frames are L2-normalised; their result is not.

    Args:
        num_frames: T, frames that every video has.
        start: weights before training: of the ``mean`` over frames, or of the ``middle`` frame (the later of two).

    Raises:
        ValueError: If ``num_frames`` is below 1 or ``start`` unknown.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import LinearAggregator
        >>> LinearAggregator(4)(torch.randn(2, 4, 512), torch.arange(4.0).expand(2, 4)).shape
        torch.Size([2, 512])
    """

    def __init__(self, num_frames: int = NUM_FRAMES, start: Literal["mean", "middle"] = "mean") -> None:
        super().__init__()
        check_sizes(num_frames=num_frames)
        if start not in ("mean", "middle"):
            raise ValueError(f"start must be mean or middle, got {start!r}")
        weight = torch.full((num_frames,), 1 / num_frames)
        if start == "middle":
            weight = torch.zeros(num_frames)
            weight[num_frames // 2] = 1
        self.weight = nn.Parameter(weight)

    def forward(self, frames: Tensor, timestamps: Tensor) -> Tensor:
        """Aggregates each video's frames.

        Args:
            frames: audio embedding of each frame, ``[B, T, A]``.
            timestamps: seconds, ``[B, T]``. They give the frames' order in time and nothing else; equal ones stay in
                the order given. Their values are not checked.

        Returns:
            ``[B, A]``, not unit vectors.

        Raises:
            ValueError: If there are not exactly ``num_frames`` frames, or shapes do not fit.
        """
        _check_frames(frames, timestamps)
        if frames.shape[1] != len(self.weight):
            raise ValueError(f"a video must have {len(self.weight)} frames (num_frames), got {frames.shape[1]}")
        places = timestamps.argsort(dim=1, stable=True).argsort(dim=1)  # [B, T]
        return torch.einsum("bt,bta->ba", self.weight[places], F.normalize(frames, dim=-1))


def mean_over_frames(frames: Tensor) -> Tensor:
    """Averages a video's L2-normalised frames, the aggregation that learns nothing.

    Args:
        frames: ``[B, T, A]``, at least one frame.

    Returns:
        ``[B, A]``, not unit vectors.

    Raises:
        ValueError: If ``frames`` has not three dimensions or no frame.
    """
    if frames.ndim != 3 or not frames.shape[1]:
        raise ValueError(f"frames must have shape [videos, frames, width] with a frame, got {tuple(frames.shape)}")
    return F.normalize(frames, dim=-1).mean(1)


def _check_frames(frames: Tensor, timestamps: Tensor, audio_width: int | None = None) -> None:
    if frames.ndim != 3 or audio_width not in (None, frames.shape[2]):
        width = "width" if audio_width is None else audio_width
        raise ValueError(f"frames must have shape [videos, frames, {width}], got {tuple(frames.shape)}")
    if timestamps.shape != frames.shape[:2]:
        raise ValueError(f"timestamps must have shape {tuple(frames.shape[:2])}, got {tuple(timestamps.shape)}")
