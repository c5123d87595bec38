"""Has encoders hear files: in batches, decoded by other threads meanwhile, and each file once, through a cache."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.protocols import SyncEstimator, WaveformEncoder, hears_frames, tells_classes
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
class Ear:
    """Who hears a sound, and what is kept of it.

    Attributes:
        encoder: the encoder.
        frames: keep the embeddings of an encoder's frames; else that of the sound, and its classes.
    """

    encoder: WaveformEncoder
    frames: bool = False

    @property
    def identity(self) -> str:
        """The encoder's, and whether frames are kept."""
        return f"{self.encoder.identity}|frames" if self.frames else self.encoder.identity

    @property
    def numbers(self) -> int:
        """Numbers in a row: an embedding's and, of a whole sound, its classes'."""
        labels = len(self.encoder.labels) if not self.frames and tells_classes(self.encoder) else 0
        return self.encoder.width + labels

    def hear(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encodes sounds: float32 [rows, numbers] each, of which a whole sound has one row."""
        if self.frames:
            if not hears_frames(self.encoder):
                raise TypeError(f"{self.encoder.identity} hears no frames")
            return [frames.float().numpy() for frames in self.encoder.embed_frames(waveforms)]
        if tells_classes(self.encoder):
            rows = torch.cat(self.encoder.embed_and_label(waveforms), dim=1)
        else:
            rows = self.encoder.embed(waveforms)
        return [*rows.float().numpy()[:, None]]

    def gives(self, rows: np.ndarray) -> bool:
        """Tells whether rows are of the shape that :meth:`hear` gives."""
        few = len(rows) >= 1 if self.frames else len(rows) == 1
        return rows.ndim == 2 and few and rows.shape[1] == self.numbers


@dataclass(frozen=True)
class HeardFiles:
    """What was heard, by file.

    Attributes:
        content: sha256 of each file that can be used.
        facts: what each is like.
        rows: by name of the ear: what it keeps of each file, float32 [rows, numbers].
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

    def at_rate(self, sample_rate: int) -> np.ndarray:
        """Gives the waveform at a rate that an encoder needs which the cache has nothing of."""
        if self.waveforms is None:
            raise TypeError("all of it is in the cache")
        return self.waveforms[sample_rate]


def hear_files(paths: Iterable[Path], ears: Mapping[str, Ear], listener: Listener) -> HeardFiles:
    """Has all encoders hear all files.

    Args:
        paths: the files; each counts once.
        ears: by name; none: only the facts are gathered.
        listener: how.

    Returns:
        What was heard; files that cannot be read, or that an encoder cannot hear, are among its problems.

    Raises:
        InputError: an encoder cannot run.
    """
    heard = HeardFiles(rows={name: {} for name in ears})
    parts = batches(sorted(set(paths)), listener.batch_size)
    # Closed here, also after an error: an iterator that waits for its threads only when the garbage collector finds it
    # may wait in a thread that is just starting, and holds the lock which the wait needs.
    with closing(_ahead(parts, lambda path: _read(path, ears, listener), listener.workers)) as reading:
        for part in tracked(parts, "sounds" if listener.progress else ""):
            _hear_part(dict(zip(part, next(reading), strict=True)), ears, heard, listener)
    return heard


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


def _hear_part(
    part: Mapping[Path, "Future[_Read]"], ears: Mapping[str, Ear], heard: HeardFiles, listener: Listener
) -> None:
    """Has all encoders hear the files of a batch."""
    waiting: dict[Path, _Read] = {}
    for path, future in part.items():
        try:
            waiting[path] = future.result()
        except InputError as error:
            heard.refuse(path, str(error))
    for name, ear in ears.items():
        _hear(name, ear, waiting, heard, listener)
    for path, read in waiting.items():
        if path not in heard.problems:
            heard.content[path], heard.facts[path] = read.content, read.facts
        if read.waveforms is not None:  # stored by this thread alone: files may be alike, and have one name there
            listener.cache.store(listener.cached(read.content, FACTS), read.facts.row())


def _ahead(
    parts: Sequence[Sequence[Path]], read: Callable[[Path], _Read], workers: int
) -> Generator[list["Future[_Read]"], None, None]:
    """Starts to read a batch while the one before it is used; gives the futures of each batch."""
    with ThreadPoolExecutor(workers) as pool:
        started: list[list[Future[_Read]]] = []
        for part in parts:
            started.append([pool.submit(read, path) for path in part])
            if len(started) > 1:
                yield started.pop(0)
        yield from started


def _read(path: Path, ears: Mapping[str, Ear], listener: Listener) -> _Read:
    """Reads a file, and decodes it if anything about it is not in the cache."""
    data = read_media(Path(), str(path))
    content = hashlib.sha256(data).hexdigest()
    rows = {}
    for name, ear in ears.items():
        found = _cached(ear, content, listener)
        if found is not None:
            rows[name] = found
    facts = listener.cache.find(listener.cached(content, FACTS), (1, 3))
    if facts is not None and len(rows) == len(ears):
        return _Read(content, SoundFacts.of_row(facts), rows, None)
    sound = read_sound(data, str(path), listener.seconds)
    return _Read(content, sound.facts, rows, _waveforms(sound, ears, rows))


def _cached(ear: Ear, content: str, listener: Listener) -> np.ndarray | None:
    """Finds what an ear kept of a file before, by its sha256."""
    found = listener.cache.find(listener.cached(content, ear.identity), None)
    return found if found is not None and ear.gives(found) else None


def _waveforms(sound: Sound, ears: Mapping[str, Ear], known: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    rates = {ear.encoder.sample_rate for name, ear in ears.items() if name not in known}
    return {rate: sound.at_rate(rate) for rate in rates}


def _hear(name: str, ear: Ear, waiting: Mapping[Path, _Read], heard: HeardFiles, listener: Listener) -> None:
    """Has one encoder hear the files of a batch that it has not heard before; of files that are alike, one."""
    alike: dict[str, list[Path]] = {}
    for path, read in waiting.items():
        if path in heard.problems:
            continue
        rows = read.rows.get(name)
        if rows is None:  # a batch may have stored it since this one was read
            rows = _cached(ear, read.content, listener)
        if rows is None:
            alike.setdefault(read.content, []).append(path)
        else:
            heard.rows[name][path] = rows
    new = {paths[0]: waiting[paths[0]].at_rate(ear.encoder.sample_rate) for paths in alike.values()}
    for path, rows in _encode_each(ear, new, heard):
        content = waiting[path].content
        heard.rows[name].update(dict.fromkeys(alike[content], rows))
        listener.cache.store(listener.cached(content, ear.identity), rows)
    for first, *others in alike.values():
        for path in others if first in heard.problems else ():
            heard.refuse(path, heard.problems[first].replace(str(first), str(path)))


def _encode_each(
    ear: Ear, waveforms: Mapping[Path, np.ndarray], heard: HeardFiles
) -> Iterator[tuple[Path, np.ndarray]]:
    """Encodes a batch; if the encoder refuses it, one sound after the other, so that the right one is blamed."""
    if not waveforms:
        return
    try:
        found = ear.hear([*waveforms.values()])
    except InputError:
        found = []
    for number, (path, waveform) in enumerate(waveforms.items()):
        try:
            rows = found[number] if found else ear.hear([waveform])[0]
            if not ear.gives(rows):
                raise ValueError(f"{ear.identity}: gave {rows.shape}, needs rows of {ear.numbers} numbers")
            _check_finite(rows, ear.identity, path)
        except InputError as error:
            heard.refuse(path, str(error))
        else:
            yield path, rows


def _check_finite(rows: np.ndarray, identity: str, path: Path) -> None:
    if not np.isfinite(rows).all():
        raise InputError(f"{path}: {identity} gave NaN or infinity; look at the sound")
