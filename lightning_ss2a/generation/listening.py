"""Hears what must not be heard: a tagger on the sounds that were made."""

import numpy as np
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.scene.labels import Unwanted
from lightning_ss2a.perception.encoders.protocols import AudioEncoder
from lightning_ss2a.perception.media.waveform import at_rate

WINDOW, HOP = 2.0, 1.0
"""Seconds that are heard at once, so that a word in ten seconds of rain is not averaged away."""


class Tagger:
    """Hears unwanted things in sounds.

    Args:
        encoder: with a label head whose labels are AudioSet's.
        unwanted: what must not be heard.
        threshold: probability of a label from which it counts as heard, above 0, at most 1.

    Raises:
        InputError: the encoder has no label head.
    """

    def __init__(self, encoder: AudioEncoder, unwanted: Unwanted, threshold: float) -> None:
        head = encoder.label_head()
        if head is None:
            raise InputError(
                f"{encoder.identity} has no label head, so that nothing tells what is heard: name a tagger that has "
                "one, such as --tagger lightning_ss2a.perception.YAMNet"
            )
        self.encoder, self.threshold, self._head = encoder, threshold, head
        words = [unwanted.word_for_label(label) for label in head.labels]
        self._numbers = torch.tensor([i for i, word in enumerate(words) if word is not None], dtype=torch.long)

    @property
    def identity(self) -> str:
        """Of the encoder, with the threshold."""
        return f"{self.encoder.identity}, threshold {self.threshold:g}"

    def hears(self, waveform: np.ndarray, sample_rate: int) -> dict[str, float]:
        """Finds unwanted labels in a sound, with their probabilities, the surest first.

        Args:
            waveform: mono, float32 [samples].
            sample_rate: samples per second.
        """
        rate = self.encoder.sample_rate
        embeddings = self.encoder.encode(windows_of(at_rate(waveform, sample_rate, rate), rate))
        surest = self._head.scores(embeddings).sigmoid().amax(0)[self._numbers]
        order = surest.argsort(descending=True, stable=True)
        return {
            self._head.labels[self._numbers[i]]: round(surest[i].item(), 4)
            for i in order.tolist()
            if surest[i] >= self.threshold
        }


def windows_of(waveform: np.ndarray, sample_rate: int) -> list[np.ndarray]:
    """Cuts a sound into overlapping windows of 2 s; a shorter one is one window, and the last ends with the sound."""
    size, hop = round(WINDOW * sample_rate), round(HOP * sample_rate)
    last = max(0, len(waveform) - size)
    return [waveform[start : start + size] for start in [*range(0, last, hop), last]]
