"""Writes what was heard and measured as av-benchmark keeps it."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.av_benchmark.layout import IS_SEED, IS_SPLITS, SCORES, features_of
from lightning_ss2a.evaluation.encoders.synchformer import Synchformer
from lightning_ss2a.evaluation.evaluate import Evaluation
from lightning_ss2a.evaluation.measures import FAD, IS, KL, DeSync, Measure, Rows
from lightning_ss2a.evaluation.protocols import SyncEstimator, WaveformEncoder
from lightning_ss2a.files import write_whole


def write_av_benchmark(folder: Path, evaluation: Evaluation, sync: SyncEstimator | None = None) -> list[Path]:
    """Writes a folder of caches for each method and the reference, and each method's scores by av-benchmark's names.

    Only what was heard and measured is there: of VGGish (where a measure reads its frames), PANNs and PaSST, and of
    scores those that mean the same in both.

    Args:
        folder: made if need be; it gets a folder for each method, and one for the reference.
        evaluation: what came out.
        sync: what told the offsets; only Synchformer's have a name there.

    Returns:
        The files.

    Raises:
        InputError: a name of a method is none of a folder, or a folder cannot be made.
    """
    written = []
    for name, rows in evaluation.heard.items():
        if Path(name).name != name:
            raise InputError(f"{name}: cannot be the name of a folder; name the method otherwise, NAME=DIR")
        place = folder / name
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{place}: cannot be made ({error.strerror}); name another folder") from error
        files: dict[str, dict[str, dict[str, Tensor]]] = {}
        for measure in evaluation.measured.values():
            if measure.encoder:
                encoder = evaluation.encoders[measure.encoder]
                _gather(files, evaluation.items, rows[measure.ear], encoder, measure.frames)
        for file, entries in files.items():
            content = io.BytesIO()
            torch.save({item: entry.get("", entry) for item, entry in entries.items()}, content)
            written.append(write_whole(place / file, content.getvalue()))
        scores = named_scores(evaluation, name, sync)
        if scores:
            written.append(write_whole(place / SCORES, json.dumps(scores, indent=4) + "\n"))
    return written


def named_scores(evaluation: Evaluation, method: str, sync: SyncEstimator | None) -> dict[str, float]:
    """Gives a method's scores by av-benchmark's names; those that it has no name for, or that are NaN, are left out."""
    named = {}
    for score in evaluation.scores:
        measure = evaluation.measured[score.measure]
        key = score_name(measure, evaluation.encoders.get(measure.encoder), sync)
        if key and score.method == method and math.isfinite(score.value):
            named[key] = score.value
    return named


def score_name(measure: Measure, encoder: WaveformEncoder | None, sync: SyncEstimator | None) -> str:
    """Names a measure as av-benchmark does, if it measures the same; else empty."""
    if isinstance(measure, DeSync):
        return "DeSync" if isinstance(sync, Synchformer) else ""
    features = None if encoder is None else features_of(encoder)
    if features is None:
        return ""
    if isinstance(measure, FAD) and measure.scale == 1 and measure.frames == features.frames:
        return features.distance
    if isinstance(measure, KL) and measure.activation == "softmax":
        return f"KL-{features.classes}-softmax"
    if isinstance(measure, IS) and (measure.splits, measure.seed) == (IS_SPLITS, IS_SEED):
        return f"ISC-{features.classes}-mean"
    return ""


def _gather(
    files: dict[str, dict[str, dict[str, Tensor]]],
    items: Sequence[str],
    rows: Rows,
    encoder: WaveformEncoder,
    frames: bool,
) -> None:
    """Adds what an encoder heard to the entries, by file, item and key; an entry that is a tensor has an empty key."""
    features = features_of(encoder)
    if features is None or features.frames != frames or not rows.there.any():
        return
    embeddings: Sequence[Tensor] = [*rows.embeddings]
    if rows.owners is not None:
        embeddings = rows.embeddings.split(torch.bincount(rows.owners, minlength=len(items)).tolist())
    columns = [embeddings] if rows.logits is None else [embeddings, [*rows.logits]]
    for part, tensors in zip(features.parts, columns, strict=True):
        entries = files.setdefault(part.file, {})
        for number in rows.there.nonzero().flatten().tolist():
            entries.setdefault(items[number], {})[part.key] = tensors[number].clone()  # a view would save all
