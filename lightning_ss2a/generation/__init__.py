"""What trained modules generate: embeddings of frames, and sounds.

What needs Lightning, which takes seconds to import, is imported from its own module.
"""

from lightning_ss2a.generation.audioldm import AudioLDM, AudioLDMOptions

__all__ = ["AudioLDM", "AudioLDMOptions"]
