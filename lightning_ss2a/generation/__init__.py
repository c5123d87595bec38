"""What trained modules generate: embeddings of frames, and sounds."""

from lightning_ss2a.generation.audioldm import AudioLDM, AudioLDMOptions
from lightning_ss2a.generation.frames import generate_frames

__all__ = ["AudioLDM", "AudioLDMOptions", "generate_frames"]
