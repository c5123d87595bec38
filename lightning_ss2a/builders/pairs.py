"""Builds data sets of pairs from pictures and sounds."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_ss2a.builders.pair_list import Pair, read_pairs
from lightning_ss2a.builders.rejected import REJECTED, rejected_csv
from lightning_ss2a.builders.splits import assign_splits, connected_rows
from lightning_ss2a.data import PAIR_ORIGINS, FieldSpec, ShardWriter
from lightning_ss2a.data.format.compression import Compression
from lightning_ss2a.data.format.convert import group_of
from lightning_ss2a.data.format.writer import check_output
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path, write_whole
from lightning_ss2a.perception.detectors.crops import CropShape, shown_as
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.encoding import EncodedMedia, encode_images, encode_sounds
from lightning_ss2a.perception.weights import Described, check_weights, load_models

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 1024
CACHE = ".cache/embeddings"
"""Folder of embeddings encoded before, if none is named."""


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        rows: rows written, by split.
        groups: number of groups.
        classes: number of classes.
        rejected: rows that were left out.
    """

    rows: dict[str, int]
    groups: int
    classes: int
    rejected: int

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {rows}" for split, rows in self.rows.items())
        left_out = f"; {self.rejected} rejected ({REJECTED} says why)" if self.rejected else ""
        return f"{sum(self.rows.values())} rows ({splits}), {self.groups} groups, {self.classes} classes{left_out}"


def build_pairs(
    source: str,
    output: str,
    image_encoder: ImageEncoder,
    audio_encoder: AudioEncoder,
    *,
    media_root: str | None = None,
    cache: str | None = None,
    image_views: int = 8,
    audio_views: int = 6,
    crop_shape: CropShape = "padded",
    folds: int = 0,
    validation_fraction: float = 0.1,
    seed: int = 0,
    dtype: Literal["float16", "float32"] = "float16",
    provenance: str = "",
    licence: str = "",
    skip_bad: bool = False,
    compression: Compression = "none",
    overwrite: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Builds a data set of kind ``pairs`` from pictures and their sounds.

    Every file is encoded once, however many rows it is in, and kept in the cache: a build that stopped goes on where it
    was, and one with more rows encodes only those. Embeddings are stored as the encoders give them.

    In each split annotated rows come first, then curated, then translated ones. So the first row of a group, by which
    evaluation judges with ``rows_per_group=one``, is an annotated one if the group has any; and pairs of other origins
    that are added to a group change neither its number nor its split.

    Args:
        source: a CSV file with the columns image, sound and optionally name, class, group, pair_origin; or a folder in
            which a picture and a sound of the same name are a pair and each sub-folder is a class.
        output: folder of the data set.
        image_encoder: turns pictures into the field ``visual``.
        audio_encoder: turns sounds into the field ``audio``; its label head, if any, is stored as well.
        media_root: folder that relative paths start from; default: the CSV file's, or the folder.
        cache: folder of embeddings encoded before; default: ``.cache/embeddings`` in the working directory.
        image_views: views of each picture: itself, then random crops, mirrored and recoloured.
        audio_views: views of each sound: itself, then random segments, louder or quieter.
        crop_shape: how pictures become squares: in the middle of white, or stretched as in the paper.
        folds: number of folds, splits ``fold0`` and so on; 0: splits ``train`` and ``validation``.
        validation_fraction: part of the groups in ``validation``, without folds.
        seed: of splits and views.
        dtype: as stored.
        provenance: where the media come from, for the manifest.
        licence: licence of the media, for the manifest.
        skip_bad: leave out rows whose media cannot be used, and say why in ``rejected.csv``, instead of stopping once
            all are encoded.
        compression: gzip compresses what gets at least 10 % smaller by it, for data that repeat themselves.
        overwrite: replace a data set in the output folder; other files there stay.
        progress: show a progress bar.

    Returns:
        what was written and what was left out.

    Raises:
        InputError: bad input; or a file of the encoders is missing: all of them are named before any medium is read.
            Media that cannot be used are logged one by one, all of them, before it is raised.
    """
    if min(image_views, audio_views) < 1 or min(folds, seed) < 0 or folds == 1 or not 0 < validation_fraction < 1:
        raise InputError(
            "image_views and audio_views need at least 1, folds 0 or at least 2, validation_fraction between 0 and 1, "
            "seed at least 0"
        )
    check_output(output, overwrite, [REJECTED])
    encoders = (image_encoder, audio_encoder)
    check_weights(model.describe() for model in encoders if isinstance(model, Described))
    load_models(encoders)
    listing = to_path(source)
    listed = read_pairs(listing)
    root = media_folder(listing, media_root)
    embeddings = EmbeddingCache(to_path(cache or CACHE))
    pictures = (pair.image for pair in listed)
    images = encode_images(pictures, root, image_encoder, image_views, embeddings, seed, progress, crop_shape)
    sounds = encode_sounds((p.sound for p in listed), root, audio_encoder, audio_views, embeddings, seed, progress)
    usable, problems = _usable(listed, images, sounds)
    pairs = annotated_first(usable)
    if (problems and not skip_bad) or not pairs:
        first, reason = problems[0]
        raise InputError(
            f"{source}: {len(problems)} of {len(listed)} pairs cannot be used (each is named above), the first: "
            f"{first.place}: {reason}; mend them" + (", or leave them out with skip_bad" if pairs else "")
        )
    groups = _groups(pairs, images, sounds)
    classes = sorted({pair.class_name for pair in pairs})
    splits = assign_splits(
        groups, [p.class_name for p in pairs], folds=folds, validation_fraction=validation_fraction, seed=seed
    )
    fields = {
        "visual": FieldSpec(
            image_encoder.width, shown_as(image_encoder.identity, crop_shape), dtype, views=image_views
        ),
        "audio": FieldSpec(audio_encoder.width, audio_encoder.identity, dtype, views=audio_views),
    }
    # Encoding is what takes long, and that is kept: shards of a build that stopped are simply written again.
    with ShardWriter(
        output,
        "pairs",
        fields,
        classes,
        provenance=provenance,
        licence=licence,
        folds=sorted(set(splits)) if folds else None,
        label_head=audio_encoder.label_head(),
        compression=compression,
        overwrite=True,
        beside=[REJECTED] if skip_bad else [],
    ) as writer:
        for split, part in _parts(splits):
            rows = _rows([pairs[i] for i in part], [groups[i] for i in part], classes)
            visual = images.embeddings(pairs[i].image for i in part)
            writer.write(split, {"visual": visual, "audio": sounds.embeddings(pairs[i].sound for i in part), **rows})
        if skip_bad:
            table = ([f"{pair.image} {pair.sound}", pair.place, pair.key, reason] for pair, reason in problems)
            write_whole(writer.staging / REJECTED, rejected_csv(table))
    counts = {split: splits.count(split) for split in sorted(set(splits))}
    return BuildReport(counts, len(set(groups)), len(classes), len(problems))


def media_folder(listing: Path, media_root: str | None) -> Path:
    """Tells where relative paths of a list start: in the named folder, or the list's own."""
    return to_path(media_root) if media_root else listing if listing.is_dir() else listing.parent


def annotated_first(pairs: Sequence[Pair]) -> list[Pair]:
    """Sorts pairs by origin, in the order of ``PAIR_ORIGINS``; those of one origin keep their order."""
    return sorted(pairs, key=lambda pair: PAIR_ORIGINS.index(pair.pair_origin))


def _usable(
    listed: Sequence[Pair], images: EncodedMedia, sounds: EncodedMedia
) -> tuple[list[Pair], list[tuple[Pair, str]]]:
    """Selects the pairs whose media can be used; also gives the others with the reason, which is logged."""
    pairs, problems = [], []
    for pair in listed:
        found = [images.problems.get(pair.image), sounds.problems.get(pair.sound)]
        if any(found):
            problems.append((pair, "; ".join(filter(None, found))))
            logger.warning("%s: %s", pair.place, problems[-1][1])
        else:
            pairs.append(pair)
    return pairs, problems


def _groups(pairs: Sequence[Pair], images: EncodedMedia, sounds: EncodedMedia) -> list[int]:
    """Groups the pairs: those with the same given group, the same picture or the same sound, by content."""
    marks = [
        [("image", images.content[pair.image]), ("sound", sounds.content[pair.sound])]
        + ([("group", pair.group)] if pair.group is not None else [])
        for pair in pairs
    ]
    # Numbers made of content, so that groups of two data sets differ unless their first pairs are the same.
    return [group_of("".join(content for _, content in marks[first][:2]).encode()) for first in connected_rows(marks)]


def _parts(splits: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """Cuts rows into (split, numbers of some of its rows), so that few embeddings are in memory at a time."""
    for split in sorted(set(splits)):
        rows = [row for row, own in enumerate(splits) if own == split]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield split, rows[start : start + ROWS_AT_ONCE]


def _rows(pairs: Sequence[Pair], groups: Sequence[int], classes: Sequence[str]) -> dict[str, list[Any]]:
    """Makes the columns that are not embeddings."""
    number = {name: i for i, name in enumerate(classes)}
    return {
        "key": [pair.key for pair in pairs],
        "name": [pair.name for pair in pairs],
        "class_index": [number[pair.class_name] for pair in pairs],
        "pair_origin": [PAIR_ORIGINS.index(pair.pair_origin) for pair in pairs],
        "group": list(groups),
    }
