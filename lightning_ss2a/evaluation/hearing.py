"""Has encoders hear files: in batches, decoded by other threads meanwhile, and each file once, through a cache."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.protocols import SyncEstimator, WaveformEncoder, tells_classes
from lightning_ss2a.evaluation.sounds import FACTS, Sound, SoundFacts, describe_rule, read_sound
from lightning_ss2a.perception.embedding_cache import EmbeddingCache
from lightning_ss2a.perception.encoders.running import batches
from lightning_ss2a.perception.encoding import tracked
from lightning_ss2a.perception.media.files import read_media


@dataclass(frozen=True)
class Listener:
    """How files are heard.

    Attributes:
        cache: what was heard before.
        seconds: how much of a sound is heard; None: all.
        batch_size: sounds at once.
        workers: threads that read and decode.
        progress: show a progress bar.
    """

    cache: EmbeddingCache
    seconds: float | None
    batch_size: int
    workers: int
    progress: bool

    def cached(self, content: str, identity: str) -> Path:
        """Names the cache's file of what an encoder hears in a file, by its sha256."""
        return self.cache.path(content, f"{identity}|{describe_rule(self.seconds)}", views=1, seed=0)


@dataclass(frozen=True)
class HeardFiles:
    """What was heard, by file.

    Attributes:
        content: sha256 of each file that can be used.
        facts: what each is like.
        rows: by name of the encoder: embedding, then class logits if it gives any, float32 [width + labels].
        problems: why a file cannot be used.
    """

    content: dict[Path, str] = field(default_factory=dict)
    facts: dict[Path, SoundFacts] = field(default_factory=dict)
    rows: dict[str, dict[Path, np.ndarray]] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)

    def refuse(self, path: Path, reason: str) -> None:
        """Takes a file out, and keeps the reason."""
        self.problems[path] = reason
        self.content.pop(path, None)
        self.facts.pop(path, None)
        for rows in self.rows.values():
            rows.pop(path, None)


@dataclass(frozen=True)
class _Read:
    """A file, with what the cache has of it; its waveforms by rate, None: the cache has all."""

    content: str
    facts: SoundFacts
    rows: dict[str, np.ndarray]
    waveforms: dict[int, np.ndarray] | None


def hear_files(paths: Iterable[Path], encoders: Mapping[str, WaveformEncoder], listener: Listener) -> HeardFiles:
    """Has all encoders hear all files.

    Args:
        paths: the files; each counts once.
        encoders: by name; none: only the facts are gathered.
        listener: how.

    Returns:
        What was heard; files that cannot be read, or that an encoder cannot hear, are among its problems.

    Raises:
        InputError: an encoder cannot run.
    """
    heard = HeardFiles(rows={name: {} for name in encoders})
    parts = batches(sorted(set(paths)), listener.batch_size)
    reading = _ahead(parts, lambda path: _read(path, encoders, listener), listener.workers)
    for part in tracked(parts, "sounds" if listener.progress else ""):
        waiting: dict[Path, _Read] = {}
        for path, future in zip(part, next(reading), strict=True):
            try:
                waiting[path] = future.result()
            except InputError as error:
                heard.refuse(path, str(error))
        for name, encoder in encoders.items():
            _hear(name, encoder, waiting, heard, listener)
        for path, read in waiting.items():
            if path not in heard.problems:
                heard.content[path], heard.facts[path] = read.content, read.facts
            if read.waveforms is not None:  # stored by this thread alone: files may be alike, and have one name there
                listener.cache.store(listener.cached(read.content, FACTS), read.facts.row())
    return heard


def row_width(encoder: WaveformEncoder) -> int:
    """Counts the numbers that an encoder gives of a sound: its embedding's and its classes'."""
    return encoder.width + (len(encoder.labels) if tells_classes(encoder) else 0)


def encode(encoder: WaveformEncoder, waveforms: Sequence[np.ndarray]) -> Tensor:
    """Encodes sounds: float32 [items, width + labels]; see :func:`row_width`."""
    if tells_classes(encoder):
        return torch.cat(encoder.embed_and_label(waveforms), dim=1).float()
    return encoder.embed(waveforms).float()


def hear_offsets(
    pairs: Iterable[tuple[Path, Path]], contents: Mapping[Path, str], estimator: SyncEstimator, listener: Listener
) -> tuple[dict[tuple[Path, Path], np.ndarray], dict[tuple[Path, Path], str]]:
    """Has an estimator tell how far sounds are off their videos, one pair at a time.

    Args:
        pairs: sound and video.
        contents: sha256 of each sound.
        estimator: the estimator.
        listener: how.

    Returns:
        Logits of the offsets, float32 [windows, offsets], and why a pair has none, by pair.
    """
    logits: dict[tuple[Path, Path], np.ndarray] = {}
    problems: dict[tuple[Path, Path], str] = {}
    for sound, video in tracked(sorted(set(pairs)), "videos" if listener.progress else ""):
        try:
            content = hashlib.sha256(read_media(Path(), str(video))).hexdigest()
            path = listener.cached(f"{contents[sound]}+{content}", estimator.identity)
            found = listener.cache.find(path, None)
            if found is None or found.shape[1] != len(estimator.offsets):
                read = read_sound(read_media(Path(), str(sound)), str(sound), listener.seconds)
                found = estimator.offset_logits([read.at_rate(estimator.sample_rate)], [video])[0].numpy()
                _check_finite(found, estimator.identity, sound)
                listener.cache.store(path, found.astype(np.float32))
            logits[sound, video] = found
        except InputError as error:
            problems[sound, video] = str(error)
    return logits, problems


def _ahead(
    parts: Sequence[Sequence[Path]], read: Callable[[Path], _Read], workers: int
) -> Iterator[list["Future[_Read]"]]:
    """Starts to read a batch while the one before it is used; gives the futures of each batch."""
    with ThreadPoolExecutor(workers) as pool:
        started: list[list[Future[_Read]]] = []
        for part in parts:
            started.append([pool.submit(read, path) for path in part])
            if len(started) > 1:
                yield started.pop(0)
        yield from started


def _read(path: Path, encoders: Mapping[str, WaveformEncoder], listener: Listener) -> _Read:
    """Reads a file, and decodes it if anything about it is not in the cache."""
    data = read_media(Path(), str(path))
    content = hashlib.sha256(data).hexdigest()
    rows = {}
    for name, encoder in encoders.items():
        found = listener.cache.find(listener.cached(content, encoder.identity), (1, row_width(encoder)))
        if found is not None:
            rows[name] = found[0]
    facts = listener.cache.find(listener.cached(content, FACTS), (1, 3))
    if facts is not None and len(rows) == len(encoders):
        return _Read(content, SoundFacts.of_row(facts), rows, None)
    sound = read_sound(data, str(path), listener.seconds)
    return _Read(content, sound.facts, rows, _waveforms(sound, encoders, rows))


def _waveforms(
    sound: Sound, encoders: Mapping[str, WaveformEncoder], known: Mapping[str, np.ndarray]
) -> dict[int, np.ndarray]:
    rates = {encoder.sample_rate for name, encoder in encoders.items() if name not in known}
    return {rate: sound.at_rate(rate) for rate in rates}


def _hear(
    name: str, encoder: WaveformEncoder, waiting: Mapping[Path, _Read], heard: HeardFiles, listener: Listener
) -> None:
    """Has one encoder hear the files of a batch that it has not heard before."""
    usable = {path: read for path, read in waiting.items() if path not in heard.problems}
    heard.rows[name].update({path: read.rows[name] for path, read in usable.items() if name in read.rows})
    new = {
        path: read.waveforms[encoder.sample_rate]
        for path, read in usable.items()
        if read.waveforms is not None and name not in read.rows
    }
    for path, row in _encode_each(encoder, new, heard):
        heard.rows[name][path] = row
        listener.cache.store(listener.cached(waiting[path].content, encoder.identity), row[None])


def _encode_each(
    encoder: WaveformEncoder, waveforms: Mapping[Path, np.ndarray], heard: HeardFiles
) -> Iterator[tuple[Path, np.ndarray]]:
    """Encodes a batch; if the encoder refuses it, one sound after the other, so that the right one is blamed."""
    if not waveforms:
        return
    try:
        found = [encode(encoder, [*waveforms.values()])]
    except InputError:
        found = []
    for number, (path, waveform) in enumerate(waveforms.items()):
        try:
            row = (found[0][number] if found else encode(encoder, [waveform])[0]).numpy()
            if row.shape != (row_width(encoder),):
                raise ValueError(f"{encoder.identity}: gave {row.shape}, needs {row_width(encoder)} numbers a sound")
            _check_finite(row, encoder.identity, path)
        except InputError as error:
            heard.refuse(path, str(error))
        else:
            yield path, row


def _check_finite(row: np.ndarray, identity: str, path: Path) -> None:
    if not np.isfinite(row).all():
        raise InputError(f"{path}: {identity} gave NaN or infinity; look at the sound")
