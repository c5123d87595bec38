"""Sounds CLAP embeddings by the parts of an AudioLDM checkpoint (Liu et al. 2023), run by diffusers."""

from lightning_ss2a.generation.audioldm.generator import AudioLDM
from lightning_ss2a.generation.audioldm.options import AudioLDMOptions

__all__ = ["AudioLDM", "AudioLDMOptions"]
