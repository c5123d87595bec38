"""What trained modules generate."""

from lightning_ss2a.generation.frames import generate_frames

__all__ = ["generate_frames"]
