"""Composes scenes and videos out of single-source pairs, with their waveforms really mixed."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_ss2a.builders.composition_draws import (
    COMPOSITIONS,
    Composition,
    PairRow,
    compositions_csv,
    draw_composition,
    find_groups,
)
from lightning_ss2a.builders.mixing import (
    FRAME_TIMES,
    active_sources,
    collage,
    loudest_source,
    mix,
    scene_parts,
    video_parts,
)
from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.builders.pairs import CACHE, media_folder
from lightning_ss2a.data import FieldSpec, Manifest, ShardReader, ShardWriter
from lightning_ss2a.data.format.compression import Compression
from lightning_ss2a.data.format.writer import check_output
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import local_path, to_path, write_whole
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.encoding import (
    EncodedMedia,
    checked_embeddings,
    encode_images,
    tracked,
    view_generator,
)
from lightning_ss2a.perception.media.files import load_audio, load_image, read_media
from lightning_ss2a.perception.media.views import image_views as draw_views
from lightning_ss2a.perception.weights import load_models

logger = logging.getLogger(__name__)

MAX_SOURCES = {"scenes": 4, "videos": 3}
"""Sources of a composition at most, if no number is given; by kind."""
BATCH = 32
"""Compositions at once."""


@dataclass(frozen=True)
class ComposeReport:
    """What was composed.

    Attributes:
        kind: ``scenes`` or ``videos``.
        rows: rows written, by split.
        sources: sources of all rows.
        pairs: different pairs among them.
    """

    kind: str
    rows: dict[str, int]
    sources: int
    pairs: int

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {rows}" for split, rows in self.rows.items())
        return f"{sum(self.rows.values())} {self.kind} ({splits}) with {self.sources} sources out of {self.pairs} pairs"


def compose_dataset(
    source: str,
    output: str,
    image_encoder: ImageEncoder,
    audio_encoder: AudioEncoder,
    *,
    kind: Literal["scenes", "videos"],
    pairs_dataset: str,
    media_root: str | None = None,
    cache: str | None = None,
    rows: int = 160,
    max_sources: int | None = None,
    image_views: int = 8,
    seed: int = 0,
    dtype: Literal["float16", "float32"] = "float16",
    provenance: str | None = None,
    licence: str | None = None,
    compression: Compression = "none",
    overwrite: bool = False,
    progress: bool = True,
) -> ComposeReport:
    """Composes a data set of kind ``scenes`` or ``videos`` from pictures and sounds of single sources.

    The sounds of a row are mixed as waveforms and its pictures laid out on one canvas; then the encoders hear and see
    the whole (:mod:`lightning_ss2a.builders.mixing`). The embeddings of ``sources`` are those of the pictures
    alone. Only annotated pairs are used, and those of one row come from one split of ``pairs_dataset`` and from
    different groups, so that its splits and folds stay apart. What is drawn for a row depends on seed, kind, split and
    number alone: not on what was cached, nor on how many rows there are. (The encoders see rows in batches, which may
    change the last bits of an embedding.) ``compositions.csv`` names the pairs of each row, a line a source.

    Args:
        source: the list that ``pairs_dataset`` was built from: a CSV file or a folder, see ``build_pairs``.
        output: folder of the data set.
        image_encoder: turns pictures into embeddings; that of ``pairs_dataset``.
        audio_encoder: turns sounds into the field ``audio``; that of ``pairs_dataset``. Its label head is stored.
        kind: ``scenes`` (sources, the whole picture, the sound) or ``videos`` (64 frames of 10 s, the sound).
        pairs_dataset: data set of kind pairs, which tells split, class and group of each listed pair by its key. Both
            must hold the same pairs.
        media_root: folder that relative paths start from; default: the CSV file's, or the folder.
        cache: folder of embeddings encoded before; default: ``.cache/embeddings`` in the working directory.
        rows: rows of each split.
        max_sources: sources of a row, at most; their number is uniform from 1. Default: 4 in scenes, 3 in videos.
        image_views: views of each picture, of which each source is one drawn at random; as in ``build_pairs``.
        seed: of what is drawn, and of the views; with that of ``pairs_dataset`` the views are those in it.
        dtype: as stored.
        provenance: where the media come from, for the manifest; default: what ``pairs_dataset`` says.
        licence: licence of the media, for the manifest; default: what ``pairs_dataset`` says.
        compression: gzip compresses what gets at least 10 % smaller by it, for data that repeat themselves.
        overwrite: replace a data set in the output folder; other files there stay.
        progress: show a progress bar.

    Returns:
        what was written.

    Raises:
        InputError: bad input. What can be known beforehand is found before anything is encoded.
    """
    _check_options(kind, rows, max_sources, image_views, seed)
    if to_path(output).resolve() == Path(local_path(pairs_dataset)).resolve():
        raise InputError(f"{output}: is the data set of pairs itself; choose another folder")
    check_output(output, overwrite, [COMPOSITIONS])
    reader = ShardReader(pairs_dataset)
    _check_pairs_dataset(pairs_dataset, reader.manifest, image_encoder, audio_encoder)
    listing = to_path(source)
    found = find_groups(read_pairs(listing), source, reader)
    most = max_sources or MAX_SOURCES[kind]
    _check_groups(found, most, pairs_dataset)
    drawn = [
        draw_composition(kind, split, number, groups, most, image_views, seed)
        for split, groups in found.items()
        for number in range(rows)
    ]
    load_models([image_encoder, audio_encoder])
    media = load_media(
        drawn, media_folder(listing, media_root), image_encoder, audio_encoder, cache, image_views, seed, progress
    )
    compose_rows = {"scenes": scene_columns, "videos": video_columns}[kind]
    with ShardWriter(
        output,
        kind,
        _fields(kind, image_encoder, audio_encoder, dtype),
        reader.manifest.classes,
        provenance=reader.manifest.provenance if provenance is None else provenance,
        licence=reader.manifest.licence if licence is None else licence,
        folds=reader.manifest.folds,
        label_head=audio_encoder.label_head(),
        compression=compression,
        overwrite=True,
        beside=[COMPOSITIONS],
    ) as writer:
        for split, batch in tracked(_batches(drawn), kind if progress else ""):
            # Columns left out are as they should be: every row is annotated and a group of its own.
            names = {
                "key": [c.key for c in batch],
                "name": [" + ".join(s.row.pair.name for s in c.sources) for c in batch],
            }
            writer.write(split, names | compose_rows(batch, media, image_encoder, audio_encoder))
        write_whole(writer.staging / COMPOSITIONS, compositions_csv(drawn, kind))
    pairs = {source.row.pair.key for composition in drawn for source in composition.sources}
    return ComposeReport(kind, dict.fromkeys(found, rows), sum(len(c.sources) for c in drawn), len(pairs))


class SourceMedia:
    """Pictures and sounds of the pairs; the last ones used stay in memory.

    Args:
        root: folder that their paths start from.
        images: the pictures, encoded.
        views: views of each.
        seed: of the views.
        sample_rate: samples per second of the sounds.
    """

    def __init__(self, root: Path, images: EncodedMedia, views: int, seed: int, sample_rate: int) -> None:
        self.root = root
        self.images = images
        self.views = views
        self.seed = seed
        self.sample_rate = sample_rate
        self._views_of = lru_cache(maxsize=64)(self._draw_views)
        self._sound_of = lru_cache(maxsize=256)(self._load_sound)

    def pictures(self, composition: Composition) -> list[np.ndarray]:
        """Gives the view of each source's picture, uint8 [side, side, 3] each: the pixels that were embedded."""
        return [self._views_of(source.row.pair.image)[source.view] for source in composition.sources]

    def embeddings(self, composition: Composition) -> np.ndarray:
        """Gives the embedding of each source's picture: [sources, width]."""
        every = self.images.embeddings(source.row.pair.image for source in composition.sources)
        return every[np.arange(len(every)), [source.view for source in composition.sources]]

    def sounds(self, composition: Composition) -> list[np.ndarray]:
        """Gives the sound of each source, float32 [samples] each.

        Raises:
            InputError: names the sound that cannot be used.
        """
        return [self._sound_of(source.row.pair.sound) for source in composition.sources]

    def _draw_views(self, reference: str) -> list[np.ndarray]:
        image = load_image(read_media(self.root, reference), reference)
        return draw_views(image, self.views, view_generator(self.images.content[reference], self.seed))

    def _load_sound(self, reference: str) -> np.ndarray:
        return load_audio(read_media(self.root, reference), reference, self.sample_rate)


def load_media(
    compositions: Sequence[Composition],
    root: Path,
    image_encoder: ImageEncoder,
    audio_encoder: AudioEncoder,
    cache: str | None,
    views: int,
    seed: int,
    progress: bool,
) -> SourceMedia:
    """Encodes the pictures of all sources; sounds are read when they are mixed.

    Args:
        compositions: what was drawn.
        root: folder that paths of media start from.
        image_encoder: encodes the pictures' views.
        audio_encoder: tells the sample rate.
        cache: folder of embeddings encoded before; None: ``.cache/embeddings``.
        views: views of each picture.
        seed: of the views.
        progress: show a progress bar.

    Raises:
        InputError: pictures that cannot be used; all of them are logged.
    """
    references = {source.row.pair.image for composition in compositions for source in composition.sources}
    images = encode_images(
        references, root, image_encoder, views, EmbeddingCache(to_path(cache or CACHE)), seed, progress
    )
    problems = list(images.problems.values())
    for problem in problems:
        logger.warning(problem)
    if problems:
        raise InputError(f"{len(problems)} pictures cannot be used (each is named above), the first: {problems[0]}")
    return SourceMedia(root, images, views, seed, audio_encoder.sample_rate)


def scene_columns(
    batch: Sequence[Composition], media: SourceMedia, image_encoder: ImageEncoder, audio_encoder: AudioEncoder
) -> dict[str, Any]:
    """Makes the columns that only scenes have: sources, global_visual, audio, classes."""
    collages = [collage(media.pictures(c), [source.place for source in c.sources]) for c in batch]
    mixes = [mix(scene_parts(media.sounds(c), c.sources, media.sample_rate)) for c in batch]
    return {
        "sources": [media.embeddings(c) for c in batch],
        "global_visual": _encode(image_encoder, collages),
        "audio": _encode(audio_encoder, mixes),
        "classes": [np.array([source.row.class_index for source in c.sources]) for c in batch],
    }


def video_columns(
    batch: Sequence[Composition], media: SourceMedia, image_encoder: ImageEncoder, audio_encoder: AudioEncoder
) -> dict[str, Any]:
    """Makes the columns that only videos have: frames, audio, class_index (of the loudest source), timestamps."""
    parts = [video_parts(media.sounds(c), c.sources, media.sample_rate) for c in batch]
    collages: list[np.ndarray] = []
    which = np.empty((len(batch), len(FRAME_TIMES)), np.int64)  # the collage that each frame shows
    for i, composition in enumerate(batch):
        shown, frames = frame_collages(composition, media.pictures(composition))
        which[i] = frames + len(collages)
        collages += shown
    return {
        "frames": _encode(image_encoder, collages)[which],
        "audio": _encode(audio_encoder, [mix(own) for own in parts]),
        "class_index": [c.sources[loudest_source(own)].row.class_index for c, own in zip(batch, parts, strict=True)],
        "timestamps": np.tile(FRAME_TIMES.astype(np.float32), (len(batch), 1)),
    }


def frame_collages(composition: Composition, pictures: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Lays out the different pictures that a video shows; also tells which of them each frame is, int64 [frames].

    A source keeps its place on the canvas; it is there while it is active.
    """
    active = active_sources([source.video_interval for source in composition.sources], FRAME_TIMES)
    subsets, which = np.unique(active, axis=0, return_inverse=True)
    shown = []
    for subset in subsets:
        seen = np.flatnonzero(subset)
        shown.append(collage([pictures[i] for i in seen], [composition.sources[i].place for i in seen]))
    return shown, which.reshape(-1)


def _check_options(kind: str, rows: int, max_sources: int | None, image_views: int, seed: int) -> None:
    if kind not in MAX_SOURCES:
        raise InputError(f"kind {kind!r} cannot be composed; choose one of {', '.join(MAX_SOURCES)}")
    if min(rows, image_views) < 1 or seed < 0 or (max_sources is not None and max_sources < 1):
        raise InputError("rows, max_sources and image_views need at least 1, seed at least 0")


def _check_pairs_dataset(folder: str, manifest: Manifest, images: ImageEncoder, sounds: AudioEncoder) -> None:
    """Refuses other encoders: rows composed with them could not be judged by a manifold of those pairs."""
    if manifest.kind != "pairs":
        raise InputError(f"{folder}: a data set of kind {manifest.kind}; pairs_dataset needs one of kind pairs")
    for field, encoder in (("visual", images.identity), ("audio", sounds.identity)):
        if manifest.encoders[field] != encoder:
            raise InputError(
                f"{folder}: field {field} was made by {manifest.encoders[field]}, the encoder given is {encoder}; "
                "use the same"
            )


def _check_groups(found: Mapping[str, Sequence[Sequence[PairRow]]], max_sources: int, folder: str) -> None:
    for split, groups in found.items():
        if len(groups) < max_sources:
            raise InputError(
                f"{folder}: split {split} has {len(groups)} groups with annotated pairs, too few for {max_sources} "
                "sources of different groups; set max_sources, or build the pairs with fewer folds"
            )


def _fields(kind: str, images: ImageEncoder, sounds: AudioEncoder, dtype: str) -> dict[str, FieldSpec]:
    audio = {"audio": FieldSpec(sounds.width, sounds.identity, dtype)}
    if kind == "videos":
        return {"frames": FieldSpec(images.width, images.identity, dtype, role="visual"), **audio}
    sources = FieldSpec(images.width, images.identity, dtype, ragged=True)
    return {"sources": sources, "global_visual": FieldSpec(images.width, images.identity, dtype), **audio}


def _batches(drawn: Sequence[Composition]) -> list[tuple[str, list[Composition]]]:
    """Cuts the compositions into batches, (split, some of its compositions), in order."""
    by_split: dict[str, list[Composition]] = defaultdict(list)
    for composition in drawn:
        by_split[composition.split].append(composition)
    return [(split, own[i : i + BATCH]) for split, own in by_split.items() for i in range(0, len(own), BATCH)]


def _encode(encoder: ImageEncoder | AudioEncoder, media: Sequence[np.ndarray]) -> np.ndarray:
    return checked_embeddings(encoder.encode(media).numpy(), len(media), encoder)
