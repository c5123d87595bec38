"""Answers requests with real sounds: retrieval from a bank."""

from lightning_ss2a.generation.sound_bank.generator import RetrievalOptions, SoundBank

__all__ = ["RetrievalOptions", "SoundBank"]
