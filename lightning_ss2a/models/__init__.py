"""Networks of the paper as plain torch modules."""

from lightning_ss2a.models.audio_to_visual import AudioToVisual, AudioToVisualOptions
from lightning_ss2a.models.cycle_mix import CycleMixOptions, CycleMixResult, cycle_mix
from lightning_ss2a.models.layers.efficient_attention import AttentionBlock, EfficientAttention
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.published_mlp import PublishedMLP
from lightning_ss2a.models.layers.residual_mlp import ResidualMLP
from lightning_ss2a.models.layers.variational_mlp import VariationalMLP
from lightning_ss2a.models.manifold import Manifold, ManifoldOptions
from lightning_ss2a.models.remixer import Remixer, RemixerOptions
from lightning_ss2a.models.temporal_aggregation import (
    LinearAggregator,
    TemporalAggregator,
    TemporalAggregatorOptions,
    frame_positions,
    mean_over_frames,
    positional_encoding,
)
from lightning_ss2a.models.v2a_mapper import (
    DiffusionMapper,
    DiffusionMapperOptions,
    RegressionMapper,
    RegressionMapperOptions,
)

__all__ = [
    "AttentionBlock",
    "AudioToVisual",
    "AudioToVisualOptions",
    "CycleMixOptions",
    "CycleMixResult",
    "DiagonalGaussian",
    "DiffusionMapper",
    "DiffusionMapperOptions",
    "EfficientAttention",
    "LinearAggregator",
    "Manifold",
    "ManifoldOptions",
    "PublishedMLP",
    "RegressionMapper",
    "RegressionMapperOptions",
    "Remixer",
    "RemixerOptions",
    "ResidualMLP",
    "TemporalAggregator",
    "TemporalAggregatorOptions",
    "VariationalMLP",
    "cycle_mix",
    "frame_positions",
    "mean_over_frames",
    "positional_encoding",
]
