"""Videos with another truth: what is heard of each source when, in place of the embedding of the whole video."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_ss2a.analysis.interventions.base import FieldIntervention, Intervention
from lightning_ss2a.analysis.simulated_sources import SimulatedSources, draw_sources_again, world_seed
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.loading.dataset import ShardDataset
from lightning_ss2a.data.simulation.truth import read_truth, read_world
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import TemporalAggregator
from lightning_ss2a.training import TemporalAggregationModule

Target = Literal["whole", "decaying", "first"]
TARGETS = get_args(Target)

DECAY_SECONDS = 2.5
"""Time in which a sound of the target ``decaying`` counts 1 / e of what it did."""


class VideoTruth(FieldIntervention):
    """Trains and measures aggregators on another target, or on perfect frames, of simulated videos.

    Args:
        videos: folder of the simulated videos that the frames were generated for, none of them mismatched.
        target: the video's audio embedding: ``whole``, as it is, where a source counts by gain x active time;
            ``decaying``, by gain x the integral of exp(-t / 2.5 s) over its active time; ``first``: the source that
            starts first and no other. All have the same sum of weights, and as much noise.
        oracle_frames: put what is heard at each frame in place of what was generated for it.

    Raises:
        InputError: an unknown target.
    """

    stages = (TemporalAggregationModule,)

    def __init__(self, videos: str, target: Target = "whole", oracle_frames: bool = False) -> None:
        if target not in TARGETS:
            raise InputError(f"VideoTruth.target must be one of {', '.join(TARGETS)}, found {target!r}")
        self.videos = videos
        self.target = target
        self.oracle_frames = oracle_frames

    def fields(self, trainer: Trainer, split: str) -> dict[str, Tensor]:
        """Makes ``audio`` and ``frames``, as far as they are changed, rounded as the data set stores them."""
        if self.target == "whole" and not self.oracle_frames:
            return {}
        sources, truth = draw_sources_again(self.videos, split), read_truth(self.videos, split)
        world, found = read_world(self.videos), {}
        times = truth["starts"], truth["stops"]
        if self.target != "whole":
            weights = source_weights(self.target, sources.gains, *times, world.spec.video_seconds)
            seed = [world_seed(self.videos), TARGETS.index(self.target) - 1, len(weights)]
            found["audio"] = mixed_audio(weights, sources.audio, world.spec.mixture_noise, seed)
        if self.oracle_frames:
            columns: dict[str, Any] = ShardDataset(self.videos, split).columns()
            timestamps = columns["timestamps"].numpy()
            found["frames"] = oracle_frames(sources, *times, timestamps, world.audio.cone)
        stored = data_of(trainer).manifest.fields
        return {name: torch.from_numpy(x.astype(stored[name].dtype)) for name, x in found.items()}


class WithoutPositions(Intervention[TemporalAggregationModule]):
    """Leaves out the encoding of time of a Temporal Aggregation, in any run that lists this."""

    stages = (TemporalAggregationModule,)

    @contextmanager
    def changed(self, trainer: Trainer, module: TemporalAggregationModule) -> Iterator[None]:
        """Leaves it out.

        Raises:
            InputError: the aggregator has none.
        """
        aggregator = module.aggregator
        if not isinstance(aggregator, TemporalAggregator):
            raise InputError(f"WithoutPositions: model.flavour={module.flavour} encodes no time; use attention")
        aggregator.encodes_time = False
        yield
        aggregator.encodes_time = True


def source_weights(target: str, gains: np.ndarray, starts: np.ndarray, stops: np.ndarray, seconds: float) -> np.ndarray:
    """Computes how much each source counts in a target, [rows, slots]; a row's sum is that of ``whole``.

    Args:
        target: see :class:`VideoTruth`.
        gains: of each source, [rows, slots], 0 where there is none.
        starts: seconds, [rows, slots].
        stops: seconds, [rows, slots].
        seconds: length of a video.
    """
    whole = gains * (stops - starts) / seconds
    if target == "whole":
        return whole
    if target == "decaying":
        weights = gains * (np.exp(-starts / DECAY_SECONDS) - np.exp(-stops / DECAY_SECONDS))
    else:
        first = np.where(gains > 0, starts, np.inf).argmin(1)
        weights = np.eye(gains.shape[1])[first]
    return weights * (whole.sum(1) / weights.sum(1))[:, None]


def mixed_audio(weights: np.ndarray, audio: np.ndarray, noise: float, seed: int | list[int]) -> np.ndarray:
    """Computes normalise(weighted sum of the sources' embeddings + noise of that length), float32 [rows, width].

    Args:
        weights: of each source, [rows, slots].
        audio: embeddings, [rows, slots, width].
        noise: expected length of the noise.
        seed: of the noise.
    """
    mixed = np.einsum("rs,rsw->rw", weights, audio)
    mixed = mixed + np.random.default_rng(seed).standard_normal(mixed.shape) * noise / np.sqrt(mixed.shape[1])
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def oracle_frames(
    sources: SimulatedSources, starts: np.ndarray, stops: np.ndarray, timestamps: np.ndarray, cone: np.ndarray
) -> np.ndarray:
    """Computes what is heard at each frame, float32 [rows, T, width]: normalise(sum of gain x audio of what is active).

    Args:
        sources: of the rows.
        starts: seconds, [rows, slots].
        stops: seconds, [rows, slots].
        timestamps: of the frames, [rows, T].
        cone: direction that all audio has in common, [width]: what is heard where nothing is active.
    """
    times = timestamps[:, :, None]
    active = (starts[:, None] <= times) & (times < stops[:, None]) & sources.filled[:, None]  # [rows, T, slots]
    frames = np.einsum("rts,rsw->rtw", active * sources.gains[:, None], sources.audio)
    frames[~active.any(2)] = cone
    return (frames / np.linalg.norm(frames, axis=2, keepdims=True)).astype(np.float32)
