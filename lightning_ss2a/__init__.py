"""lightning_ss2a: sound-source-aware audio generation (SS2A) as a PyTorch Lightning framework."""

__version__ = "0.1.0"
