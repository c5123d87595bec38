"""A stack of small models whose embeddings can be worked out by hand, with the widths and names of the tests' data."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.builders.engine.module import Stack
from lightning_ss2a.data import LabelHead
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.encoders.protocols import TextFeatures
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
THINGS = {"person": RED, "dog": GREEN, "car": BLUE}
HEARD = ("Speech", "Music", "Rain", "Moo", "Engine", "Silence", "Dog", "Water")
"""Labels of the ear: one for each tone of :func:`tone`."""


class Eye:
    """Sees the mean colour and the share of each of the three colours, and that there is something."""

    identity, width = "eye", VISUAL_WIDTH

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        return torch.stack([torch.from_numpy(self._encode(image)) for image in images]).float()

    def _encode(self, image: np.ndarray) -> np.ndarray:
        shares = [(image == np.array(colour)).all(axis=2).mean() for colour in THINGS.values()]
        white = (image == 255).all(axis=2).mean()
        return np.array([*(image.mean(axis=(0, 1)) / 255), *shares, white, 1.0, 0.5, -0.5], np.float32)


class Ear:
    """Hears how strong each of eight tones is."""

    identity, width, sample_rate = "ear", AUDIO_WIDTH, 16000

    def encode(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        return torch.stack([torch.from_numpy(self._encode(waveform)) for waveform in waveforms]).float()

    def _encode(self, waveform: np.ndarray) -> np.ndarray:
        time = np.arange(len(waveform)) / self.sample_rate
        waves = [np.exp(2j * np.pi * 200 * (tone + 1) * time) for tone in range(self.width)]
        return np.array([2 * abs(np.mean(waveform * wave)) for wave in waves], np.float32)

    def label_head(self) -> LabelHead | None:
        """Probability 0.5 at an amplitude of 0.05, 0.99 at 0.1, 0.01 at 0."""
        return LabelHead(92 * torch.eye(self.width), torch.full((self.width,), -4.6), HEARD)


class BoxDetector:
    """Finds the one rectangle of each colour."""

    identity, labels = "boxes", tuple(THINGS)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        boxes, labels = [], []
        for label, colour in THINGS.items():
            rows, columns = np.nonzero((image == np.array(colour)).all(axis=2))
            if len(rows):
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                labels.append(label)
        scores = torch.linspace(0.9, 0.8, len(boxes)) if boxes else torch.empty(0)
        return Detections(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), scores, tuple(labels))


class Letters:
    """Reads a text as the mean of its letters."""

    identity, width = "letters", 26

    def encode(self, texts: Sequence[str]) -> Tensor:
        counts = [[text.lower().count(chr(97 + i)) + 0.01 for i in range(self.width)] for text in texts]
        return normalize(torch.tensor(counts), dim=1)

    def features(self, texts: Sequence[str]) -> TextFeatures:
        return TextFeatures(tuple(texts), self.encode(texts))


class LetterPrior:
    """Sees the first letters; knows no word with a digit."""

    identity, width = "letter-prior", VISUAL_WIDTH

    def predict(self, features: TextFeatures) -> Tensor:
        for text in features.texts:
            if re.search(r"\d", text):
                raise InputError(f"text {text!r}: means no label")
        return features.embeddings[:, : self.width]


class LetterSounds:
    """Hears the letters that follow these; knows no word with a digit."""

    identity, width, audio_encoder_identity = "letter-sounds", Ear.width, Ear.identity

    def predict(self, texts: Sequence[str]) -> Tensor:
        LetterPrior().predict(Letters().features(texts))
        return Letters().encode(texts)[:, -self.width :]


def small_stack() -> Stack:
    return Stack(Eye(), Ear(), BoxDetector(), Letters(), LetterPrior())


def picture(*things: str, side: int = 200) -> np.ndarray:
    """A grey picture with a rectangle for each thing, side by side."""
    image = np.full((side, side, 3), 128, np.uint8)
    for number, thing in enumerate(things):
        left = 10 + 60 * number
        image[40:120, left : left + 50] = THINGS[thing]
    return image


def tone(*numbers: int, seconds: float = 3.0, amplitude: float = 0.2, sample_rate: int = 16000) -> np.ndarray:
    """A sound of some of the ear's eight tones."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    waves = [amplitude * np.sin(2 * np.pi * 200 * (number + 1) * time) for number in numbers]
    return np.sum(waves, axis=0).astype(np.float32)
