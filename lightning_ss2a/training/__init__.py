"""One LightningModule a stage."""

from lightning_ss2a.training.audio_to_visual import AudioToVisualModule
from lightning_ss2a.training.manifold import ManifoldModule
from lightning_ss2a.training.remixer import RemixerModule
from lightning_ss2a.training.temporal_aggregation import TemporalAggregationModule
from lightning_ss2a.training.v2a_mapper import V2AMapperModule

__all__ = [
    "AudioToVisualModule",
    "ManifoldModule",
    "RemixerModule",
    "TemporalAggregationModule",
    "V2AMapperModule",
]
