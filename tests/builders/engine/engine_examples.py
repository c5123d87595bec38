"""Lists of small media, models that are quick and can be checked by hand, and builds of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.builders.engine.build import build_media
from lightning_ss2a.builders.engine.module import Stack
from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.builders.listing import Item, Listing
from lightning_ss2a.data import ShardReader
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.protocols import Detections
from lightning_ss2a.perception.encoders.protocols import TextFeatures
from lightning_ss2a.perception.media.video import PyAVReader
from tests.perception.media_files import Loudness, MeanColour, picture_file, plain_picture, sine, sound_file

CPU = BuildTrainer(accelerator="cpu", num_workers=0)


class PreparingMeanColour(MeanColour):
    """Takes pictures that workers have prepared."""

    @staticmethod
    def prepare(image: np.ndarray) -> Tensor:
        return torch.from_numpy(image.reshape(-1, 3).mean(axis=0)).float() / 255

    def encode_prepared(self, pixels: Tensor) -> Tensor:
        self.encoded += len(pixels)
        return pixels


class PreparingLoudness(Loudness):
    """Takes sounds that workers have prepared; counts the samples of what it is given."""

    given = 0

    @staticmethod
    def prepare(waveform: np.ndarray) -> Tensor:
        return torch.tensor([float(np.sqrt((waveform**2).mean())), float(np.abs(waveform).max())])

    def encode_prepared(self, sounds: Sequence[Tensor]) -> Tensor:
        self.encoded += len(sounds)
        PreparingLoudness.given += sum(sound.numel() for sound in sounds)
        return torch.stack([*sounds])


class RedThings:
    """A detector that finds the red part of a picture; pictures that are all blue are beyond it."""

    identity, labels = "red-things", ("red",)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        if (image[..., 2] > 200).all() and (image[..., 0] < 50).all():
            raise InputError("too blue")
        rows, columns = np.nonzero((image[..., 0] > 200) & (image[..., 1] < 50))
        if not len(rows):
            return Detections(torch.empty(0, 4), torch.empty(0), ())
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Detections(torch.tensor([box]).float(), torch.tensor([0.9]), ("red",))


class PreparingRedThings(RedThings):
    """Takes pictures of which workers have left a quarter of the pixels."""

    @staticmethod
    def prepare(image: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(image[::2, ::2]))

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return self.detect_prepared(images, [*map(self.prepare, images)])

    def detect_prepared(self, images: Sequence[np.ndarray], prepared: Sequence[Tensor]) -> list[Detections]:
        found = [self._detect(small.numpy()) for small in prepared]
        return [Detections(2 * each.boxes, each.scores, each.labels) for each in found]


class Letters:
    """Reads a text as the part of its letters that are r, g and b; as prior it is the colour of the text."""

    identity, width = "letters", 3

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.nn.functional.normalize(self.features(texts).embeddings, dim=-1)

    def features(self, texts: Sequence[str]) -> TextFeatures:
        return TextFeatures(tuple(texts), torch.tensor([[text.count(x) / len(text) for x in "rgb"] for text in texts]))

    def predict(self, features: TextFeatures) -> Tensor:
        for text in features.texts:
            if "nothing" in text:
                raise InputError(f"{text!r} means nothing")
        return features.embeddings


def stack(**models: Any) -> Stack:
    return Stack(**{"image_encoder": MeanColour(), "audio_encoder": Loudness(), **models})


def write_pairs(folder: Path, count: int) -> list[Item]:
    """Pictures of one colour with sines, each other than all others."""
    folder.mkdir(exist_ok=True)
    items = []
    for i in range(count):
        (folder / f"{i}.png").write_bytes(picture_file(plain_picture((5 * i % 256, 100, 255 - 3 * i % 256))))
        sound = sine(300 + 10 * i, 0.3, peak=0.01 + 0.9 * i / count)
        (folder / f"{i}.wav").write_bytes(sound_file(sound, subtype="FLOAT"))
        items.append(
            Item(f"list row {i}", f"key{i}", f"thing {i}", f"class {i % 3}", picture=f"{i}.png", sound=f"{i}.wav")
        )
    return items


def build(items: Sequence[Item], folder: Path, models: Stack | None = None, output: str = "out", **options: Any):
    options = {"trainer": CPU, "batch_size": 4, "dtype": "float32", "progress": False, **options}
    parts = {name: options.pop(name, ()) for name in ("missing", "absent", "excluded", "repeated")}
    reader, listing = options.pop("video_reader", PyAVReader()), Listing(tuple(items), **parts)
    return build_media(listing, folder, str(folder.parent / output), models or stack(), reader, **options)


def read_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Row by key, with its split, in the order of the splits."""
    reader, rows = ShardReader(folder), {}
    for split in reader.manifest.splits:
        columns = reader.read_split(split)
        for i, key in enumerate(columns["key"]):
            row = {name: column.row(i) if hasattr(column, "row") else column[i] for name, column in columns.items()}
            rows[key.decode()] = row | {"split": split}
    return rows
