"""Networks of the paper as plain torch modules."""

from lightning_ss2a.models.audio_to_visual import AudioToVisual
from lightning_ss2a.models.cycle_mix import PUBLISHED_CYCLE_MIX, CycleMixResult, cycle_mix
from lightning_ss2a.models.layers.efficient_attention import AttentionBlock, EfficientAttention
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.residual_mlp import ResidualMLP
from lightning_ss2a.models.layers.variational_mlp import VariationalMLP
from lightning_ss2a.models.manifold import Manifold
from lightning_ss2a.models.remixer import Remixer
from lightning_ss2a.models.temporal_aggregation import (
    LinearAggregator,
    TemporalAggregator,
    frame_positions,
    mean_over_frames,
    positional_encoding,
)
from lightning_ss2a.models.v2a_mapper import DiffusionMapper, RegressionMapper

__all__ = [
    "PUBLISHED_CYCLE_MIX",
    "AttentionBlock",
    "AudioToVisual",
    "CycleMixResult",
    "DiagonalGaussian",
    "DiffusionMapper",
    "EfficientAttention",
    "LinearAggregator",
    "Manifold",
    "RegressionMapper",
    "Remixer",
    "ResidualMLP",
    "TemporalAggregator",
    "VariationalMLP",
    "cycle_mix",
    "frame_positions",
    "mean_over_frames",
    "positional_encoding",
]
