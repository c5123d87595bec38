"""Adds translated pairs to a data set of pairs: labelled sounds, each with what a prior makes of its text."""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.builders.labelled_sounds import LabelledSound
from lightning_ss2a.builders.splits import assign_splits, connected_rows
from lightning_ss2a.data import PAIR_ORIGINS, Manifest, ShardReader, ShardWriter
from lightning_ss2a.data.format.columns import dense
from lightning_ss2a.data.format.compression import Compression
from lightning_ss2a.data.format.convert import group_of
from lightning_ss2a.data.loading.stage_splits import beside_fold
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, TextEncoder, TextToImagePrior
from lightning_ss2a.perception.encoding import EncodedMedia, encode_sounds

logger = logging.getLogger(__name__)

TRANSLATED = PAIR_ORIGINS[2]
SAME_RECORDING = 0.98
"""Cosine of two sounds' embeddings from which they are taken for one recording. YAMNet's of one recording at two
loudnesses is 1.00, of an engine's start with and without a horn 0.980, of different sounds of the demo at most 0.97."""


@dataclass(frozen=True)
class TranslationReport:
    """What was added.

    Attributes:
        rows: rows added, by split.
        groups: number of their groups.
        used: the sounds that they are of, in the order of the list.
        problems: a line for each sound that was left out: refused by the prior, not usable, or in the data set already.
    """

    rows: dict[str, int]
    groups: int
    used: tuple[LabelledSound, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {rows}" for split, rows in self.rows.items())
        return f"{len(self.used)} translated rows ({splits}), {self.groups} groups; left out {len(self.problems)}"


def add_translated_pairs(
    dataset: Path,
    sounds: Sequence[LabelledSound],
    text_encoder: TextEncoder,
    prior: TextToImagePrior,
    audio_encoder: AudioEncoder,
    *,
    media_root: Path,
    cache: Path,
    seed: int = 0,
    provenance: str = "",
    licence: str = "",
    compression: Compression = "none",
    progress: bool = True,
) -> TranslationReport:
    """Adds translated pairs to a data set with folds, beside the rows that are there, which keep every bit.

    The visual embedding of a row is what the prior makes of the text, the same in all views; its audio embeddings are
    those of the sound. Sounds of one group, of equal content or so alike that they are one recording stay together, and
    a sound that the data set holds already is left out, so that no fold knows a sound of another.

    Rows of fold ``fold0`` go to the split ``fold0_translated``, and so on: no figure is measured on them, and training
    takes them with ``data.train_with=translated``.

    Args:
        dataset: folder of a data set of kind ``pairs``, which is written anew; translated rows that an earlier call has
            added are replaced. It is held in memory.
        sounds: the sounds; their classes are some of the data set's.
        text_encoder: encodes the texts for the prior.
        prior: turns them into embeddings of the data set's field ``visual``.
        audio_encoder: the encoder of the data set's field ``audio``.
        media_root: folder that the sounds' paths start from.
        cache: folder of embeddings encoded before.
        seed: of folds and views.
        provenance: where the media come from, for the manifest.
        licence: licence of all media, for the manifest.
        compression: gzip compresses what gets at least 10 % smaller by it.
        progress: show a progress bar.

    Raises:
        InputError: the data set has no folds, or is of other encoders or classes; or no sound is left.
    """
    reader = ShardReader(dataset)
    folds = _checked_folds(reader, sounds, prior, audio_encoder)
    kept = {split: reader.read_split(split) for split in reader.manifest.splits if split not in folds.values()}
    audio_views = reader.manifest.fields["audio"].views or 1
    paths = [sound.sound for sound in sounds]
    encoded = encode_sounds(paths, media_root, audio_encoder, audio_views, EmbeddingCache(cache), seed, progress)
    pictures, refused = translate([sound.text for sound in sounds], text_encoder, prior)
    problems = {sound.sound: f"{sound.place}: {refused[sound.text]}" for sound in sounds if sound.text in refused}
    problems |= {
        sound.sound: f"{sound.place}: {encoded.problems[sound.sound]}"
        for sound in sounds
        if sound.sound in encoded.problems
    }
    known = torch.cat([_unit_sounds(dense(columns["audio"])) for columns in kept.values()])
    problems |= _known([sound for sound in sounds if sound.sound not in problems], encoded, known)
    for line in problems.values():
        logger.warning(line)
    used = [sound for sound in sounds if sound.sound not in problems]
    audio = encoded.embeddings(sound.sound for sound in used) if used else np.empty(0)
    groups = _groups(used, encoded, audio)
    if len(set(groups)) < len(folds):
        raise InputError(
            f"{dataset}: only {len(set(groups))} groups of sounds can be added, which {len(folds)} folds need"
        )
    assigned = assign_splits(
        groups, [sound.class_name for sound in used], folds=len(folds), validation_fraction=0.1, seed=seed
    )
    names = list(folds.values())
    splits = [names[int(split.removeprefix("fold"))] for split in assigned]
    visual = torch.stack([pictures[sound.text] for sound in used])
    columns = _columns(used, groups, reader.manifest, visual, audio)
    added = {name: {key: values[np.array(splits) == name] for key, values in columns.items()} for name in names}
    _write(reader, dataset, kept | added, provenance, licence, compression)
    counts = {name: splits.count(name) for name in names}
    return TranslationReport(counts, len(set(groups)), tuple(used), tuple(problems.values()))


def translate(
    texts: Iterable[str], text_encoder: TextEncoder, prior: TextToImagePrior
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Gives what the prior makes of each text, float32 [width], and why it refuses the others."""
    embeddings: dict[str, Tensor] = {}
    refused: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        try:
            (embeddings[text],) = prior.predict(text_encoder.features([text]))
        except InputError as error:
            refused[text] = str(error)
    return embeddings, refused


def _checked_folds(
    reader: ShardReader, sounds: Sequence[LabelledSound], prior: TextToImagePrior, audio_encoder: AudioEncoder
) -> dict[str, str]:
    """Checks that the rows fit to the data set; gives the split beside each of its folds.

    Raises:
        InputError: they do not.
    """
    manifest = reader.manifest
    if manifest.kind != "pairs" or not manifest.folds:
        raise InputError(f"{reader.path}: needs a data set of kind pairs with folds")
    visual, audio = manifest.fields["visual"], manifest.fields["audio"]
    if (
        audio.encoder != audio_encoder.identity
        or visual.encoder not in prior.identity
        or not (visual.views and audio.views)
    ):
        raise InputError(
            f"{reader.path}: holds views of {visual.encoder} and {audio.encoder}, the sounds come by {prior.identity} "
            f"and {audio_encoder.identity}"
        )
    for sound in sounds:
        if sound.class_name not in manifest.classes:
            raise InputError(f"{sound.place}: class {sound.class_name!r} is not one of {', '.join(manifest.classes)}")
    return {fold: beside_fold(fold, TRANSLATED) for fold in manifest.folds}


def _unit_sounds(audio: np.ndarray) -> Tensor:
    """Gives the embeddings of whole sounds, the first views of [rows, views, width], as unit vectors."""
    return normalize(torch.from_numpy(audio[:, 0].astype(np.float32)), dim=1)


def _known(sounds: Sequence[LabelledSound], encoded: EncodedMedia, known: Tensor) -> dict[str, str]:
    """Finds the sounds that are recordings among those known, unit vectors [rows, width]; says so of each."""
    if not sounds:
        return {}
    found = (_unit_sounds(encoded.embeddings(sound.sound for sound in sounds)) @ known.T).amax(dim=1)
    return {
        sound.sound: f"{sound.place}: {sound.sound} is in the data set already (cosine {float(cosine):.3f})"
        for sound, cosine in zip(sounds, found, strict=True)
        if cosine >= SAME_RECORDING
    }


def _groups(sounds: Sequence[LabelledSound], encoded: EncodedMedia, audio: np.ndarray) -> list[int]:
    """Groups sounds of one given group, of the same content, or so alike that they are one recording."""
    if not sounds:
        return []
    unit = _unit_sounds(audio)
    alike = (unit @ unit.T >= SAME_RECORDING).nonzero()
    marks: list[list[Hashable]] = [
        [("sound", encoded.content[sound.sound]), *([("group", sound.group)] if sound.group is not None else [])]
        for sound in sounds
    ]
    for one, other in alike.tolist():
        marks[one].append(("alike", min(one, other), max(one, other)))
    return [group_of(encoded.content[sounds[first].sound].encode()) for first in connected_rows(marks)]


def _columns(
    sounds: Sequence[LabelledSound], groups: Sequence[int], manifest: Manifest, visual: Tensor, audio: np.ndarray
) -> dict[str, np.ndarray]:
    """Makes the columns of translated rows; ``visual`` is [rows, width], the same for all views."""
    return {
        "key": np.array([sound.key for sound in sounds]),
        "name": np.array([sound.text for sound in sounds]),
        "class_index": np.array([manifest.classes.index(sound.class_name) for sound in sounds]),
        "pair_origin": np.full(len(sounds), PAIR_ORIGINS.index(TRANSLATED)),
        "group": np.array(groups),
        "visual": visual[:, None].expand(-1, manifest.fields["visual"].views or 1, -1).numpy(),
        "audio": audio,
    }


def _write(
    reader: ShardReader,
    dataset: Path,
    splits: Mapping[str, Any],
    provenance: str,
    licence: str,
    compression: Compression,
) -> None:
    """Writes the data set anew, with these splits."""
    manifest = reader.manifest
    with ShardWriter(
        dataset,
        manifest.kind,
        manifest.fields,
        manifest.classes,
        provenance=provenance,
        licence=licence,
        folds=manifest.folds,
        label_head=manifest.load_label_head(dataset) if manifest.label_head else None,
        compression=compression,
        overwrite=True,
        made_by=manifest.made_by,
    ) as writer:
        for split, columns in splits.items():
            writer.write(split, columns)
