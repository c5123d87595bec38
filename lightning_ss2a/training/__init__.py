"""One LightningModule a stage."""

from lightning_ss2a.training.manifold import ManifoldModule

__all__ = ["ManifoldModule"]
