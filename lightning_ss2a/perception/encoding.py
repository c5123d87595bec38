"""Encodes views of media files, each file once, through a cache."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors.crops import CropShape
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.media.files import load_audio, load_image, read_media
from lightning_ss2a.perception.media.views import audio_views, image_views

T = TypeVar("T")
EncodeViews = Callable[[bytes, str, np.random.Generator], np.ndarray]
"""(content, name, source of chance) to embeddings [views, width]."""


def tracked(items: Sequence[T], title: str) -> Iterable[T]:
    """Passes items on, with a progress bar on standard error if it is a terminal; an empty title: none."""
    console = Console(stderr=True)
    return track(items, title, console=console, transient=True, disable=not (title and console.is_terminal))


def view_generator(content: str, seed: int) -> np.random.Generator:
    """Makes the random generator that draws the views of a medium, from the sha256 of its file.

    It depends on the content alone: neither on the order of files nor on what was cached.
    """
    return np.random.default_rng([seed, int(content[:16], 16)])


def checked_embeddings(embeddings: np.ndarray, rows: int, encoder: ImageEncoder | AudioEncoder) -> np.ndarray:
    """Checks what an encoder gave, and gives it as float32 [rows, width].

    Raises:
        ValueError: of another shape than the encoder says.
        InputError: not finite.
    """
    if embeddings.shape != (rows, encoder.width):
        raise ValueError(f"{encoder.identity}: gave {list(embeddings.shape)}, needs {[rows, encoder.width]}")
    if not np.isfinite(embeddings).all():
        raise InputError(f"{encoder.identity}: the embedding is not finite")
    return embeddings.astype(np.float32)


@dataclass(frozen=True)
class EncodedMedia:
    """The media files of a data set.

    Attributes:
        content: sha256 of each file's content, by reference.
        cached: file of its embeddings [views, width], by reference.
        problems: why a file cannot be used, by reference.
    """

    content: dict[str, str]
    cached: dict[str, Path]
    problems: dict[str, str]

    def embeddings(self, references: Iterable[str]) -> np.ndarray:
        """Reads the embeddings of these files: float32 [files, views, width]."""
        return np.stack([np.load(self.cached[reference], allow_pickle=False) for reference in references])


def encode_images(
    references: Iterable[str],
    root: Path,
    encoder: ImageEncoder,
    views: int,
    cache: EmbeddingCache,
    seed: int,
    progress: bool,
    crop_shape: CropShape = "padded",
) -> EncodedMedia:
    """Encodes ``views`` views of each picture, made square as ``crop_shape`` says; see :func:`encode_sounds`."""

    def encode(data: bytes, name: str, generator: np.random.Generator) -> np.ndarray:
        return encoder.encode(image_views(load_image(data, name, crop_shape), views, generator)).numpy()

    shape = "" if crop_shape == "padded" else f"+{crop_shape}"
    return _encode(references, root, encoder, views, cache, seed, encode, "pictures" if progress else "", shape)


def encode_sounds(
    references: Iterable[str],
    root: Path,
    encoder: AudioEncoder,
    views: int,
    cache: EmbeddingCache,
    seed: int,
    progress: bool,
) -> EncodedMedia:
    """Encodes ``views`` views of each sound.

    Args:
        references: files, as :func:`lightning_ss2a.perception.media.files.read_media` reads them.
        root: folder that they start from.
        encoder: the encoder.
        views: number of views.
        cache: embeddings encoded before.
        seed: of the views.
        progress: show a progress bar.

    Returns:
        the embeddings; files that cannot be used are among its problems.
    """

    def encode(data: bytes, name: str, generator: np.random.Generator) -> np.ndarray:
        waveform = load_audio(data, name, encoder.sample_rate)
        return encoder.encode(audio_views(waveform, encoder.sample_rate, views, generator)).numpy()

    return _encode(references, root, encoder, views, cache, seed, encode, "sounds" if progress else "")


def _encode(
    references: Iterable[str],
    root: Path,
    encoder: ImageEncoder | AudioEncoder,
    views: int,
    cache: EmbeddingCache,
    seed: int,
    encode: EncodeViews,
    title: str,
    preparation: str = "",
) -> EncodedMedia:
    """Encodes; what is cached has the name of the encoder, and of a preparation that is not part of it."""
    media = EncodedMedia({}, {}, {})
    # Sorted, so that files of one resource file come one after the other.
    for reference in tracked(sorted(set(references)), title):
        try:
            data = read_media(root, reference)
            content = hashlib.sha256(data).hexdigest()
            path = cache.path(content, encoder.identity + preparation, views, seed)
            if not cache.contains(path, (views, encoder.width)):
                embeddings = encode(data, reference, view_generator(content, seed))
                cache.store(path, checked_embeddings(embeddings, views, encoder))
        except InputError as error:
            media.problems[reference] = str(error)
        else:
            media.content[reference], media.cached[reference] = content, path
    return media
