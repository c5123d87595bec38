"""Answers requests with real sounds of a bank: retrieval, the generator that needs no weights."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.builders.sound_bank.bank import BANK, Bank, BankSound, read_bank
from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.files import to_path
from lightning_ss2a.generation.protocols import Rendering, SoundRequest
from lightning_ss2a.generation.sound_bank.arranging import Arrangement, arranged
from lightning_ss2a.generation.sound_bank.choosing import (
    EXCLUDED,
    alternatives,
    assigned_sounds,
    hubness,
    similarities,
    sources_alike,
)
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.perception.encoders.protocols import AudioEncoder
from lightning_ss2a.perception.identity import exactly, identify, sha256_of
from lightning_ss2a.perception.media.loudness import at_loudness
from lightning_ss2a.perception.media.waveform import at_rate

VERSION = 1
"""Goes up when the same bank and options give other sounds."""
HIGHEST_PEAK = 0.99
"""A mix whose peak is higher is made quieter as a whole."""
SOUNDS_KEPT = 64
"""Decoded sounds that stay in memory: 10 s each, 80 MB."""


@dataclass(frozen=True)
class RetrievalOptions:
    """How sounds are chosen and mixed.

    Attributes:
        loudness: of the loudest source, in LUFS (ITU-R BS.1770-4); others are quieter by their weights.
        same_source: cosine from which two sources count as one thing and may share a sound.
        candidates: of several sources, the nearest sounds of each whose embedding is predicted that are tried in the
            mix, the loudest source first; one takes the place of the nearest if the mix's embedding then comes nearer
            to the wanted one. 1: none is tried.
    """

    loudness: float = -23.0
    same_source: float = 0.99
    candidates: int = 3

    def __post_init__(self) -> None:
        check = OptionCheck("retrieval")
        check.within(-60, -5, loudness=self.loudness)
        check.within(-1, 1, same_source=self.same_source)
        check.at_least(1, candidates=self.candidates)

    @property
    def summary(self) -> str:
        """All of them in one word, for an identity."""
        return f"{exactly(self.loudness)}lufs-same{exactly(self.same_source)}-of{self.candidates}-v{VERSION}"


@dataclass(frozen=True)
class _Wanted:
    """The sources of a request that sound, those of weight 0 left out.

    Attributes:
        numbers: of each in the request; one 0 where the mixed embedding stands for all.
        labels: what each is called.
        embeddings: float32 [sources, width].
        weights: as given, [sources].
        predicted: whether its embedding is a model's, bool [sources].
    """

    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    embeddings: np.ndarray
    weights: np.ndarray
    predicted: np.ndarray

    def loudness(self, loudest: float) -> np.ndarray:
        """Gives the LUFS of each: weights are amplitudes, so that half of the largest is 6 LU less."""
        return loudest + 20 * np.log10(self.weights / self.weights.max())


@dataclass(frozen=True)
class _Layer:
    """What became of a source: the number of its sound in the bank, its LUFS, and how it fills the time."""

    sound: int
    loudness: float
    arrangement: Arrangement
    waveform: np.ndarray


@dataclass(frozen=True)
class _Mix:
    """What a choice of sounds comes to, and the cosine of its embedding to the wanted one."""

    layers: list[_Layer]
    waveform: np.ndarray
    decibels: float
    score: float


class SoundBank:
    """Plays, for each source, the nearest real sound of a bank: retrieval, never synthesis.

    How near a sound is to a source is their cosine, less what it is on average to all that may be wanted, once
    :meth:`calibrate` has been told that. Sources get different sounds unless they are called the same, or the manifold
    places them at nearly the same point. The weight of a source is its amplitude against that of the others, so that
    half the weight is 6 LU less.

    Args:
        folder: the bank; see ``ss2a bank build``.
        audio_encoder: the encoder that the bank was built with; it also judges the result.
        splits: parts of the bank that may be used; None: all.
        exclude_groups: groups of the bank that may not be used.
        retrieval: how sounds are chosen and mixed.

    Raises:
        InputError: no bank, a damaged one, one of another encoder, or nothing of it may be used.
    """

    is_retrieval = True

    def __init__(
        self,
        folder: str,
        audio_encoder: AudioEncoder,
        splits: list[str] | None = None,
        exclude_groups: list[str] | None = None,
        retrieval: RetrievalOptions = RetrievalOptions(),  # frozen
    ) -> None:
        bank = read_bank(to_path(folder))
        self._encoder = audio_encoder
        self._options = retrieval
        self.audio_encoder = bank.description.audio_encoder
        self.sample_rate = bank.description.sample_rate
        self.width = bank.embeddings.shape[2]
        if audio_encoder.identity != self.audio_encoder:
            raise InputError(
                f"{folder}: was built with {self.audio_encoder}, and this audio encoder is {audio_encoder.identity}; "
                "name the same, or build the bank again (ss2a bank build)"
            )
        self._bank = _restricted(bank, splits, exclude_groups)
        self.identity = _identity(bank, self._bank, retrieval)
        self._waveform = lru_cache(SOUNDS_KEPT)(self._bank.waveform)
        self._hubness = np.zeros(len(self._bank.sounds))

    @property
    def real_sounds(self) -> Tensor:
        """Embeddings of the sounds that may be used, the mean over views of each: float32 [sounds, width]."""
        return torch.from_numpy(self._bank.embeddings.mean(axis=1))

    def calibrate(self, expected: Tensor) -> None:
        """Takes what embeddings will look like that are asked for, float32 [N, width]: see :func:`.choosing.hubness`.

        Without it a sound is chosen by its cosine to what is wanted, by which few sounds are nearest to all that a
        manifold predicts.

        Raises:
            InputError: there are none, one is zero or not finite, or they are of another width.
        """
        wanted = expected.float().numpy()
        if wanted.shape[1:] != (self.width,) or not len(wanted):
            raise InputError(f"expected embeddings are {list(wanted.shape)}; this bank needs [any, {self.width}]")
        if not np.isfinite(wanted).all() or not wanted.any(axis=1).all():
            raise InputError("expected embeddings hold a zero vector or numbers that are not finite")
        self._hubness = hubness(wanted, self._bank.embeddings)

    def generate(self, requests: Sequence[SoundRequest], seconds: float) -> list[Rendering]:
        """Answers requests with mixes of real sounds: see :class:`~lightning_ss2a.generation.protocols.SoundGenerator`.

        Args:
            requests: what is wanted.
            seconds: length of each sound.

        Raises:
            InputError: names the request and what is wrong with it.
        """
        samples = round(seconds * self.sample_rate) if math.isfinite(seconds) else 0
        if samples < 1:
            raise InputError(f"seconds is {seconds:g}, needs more than 0")
        return [self._answer(request, samples) for request in requests]

    def _answer(self, request: SoundRequest, samples: int) -> Rendering:
        wanted = self._wanted(request)
        similarity = similarities(wanted.embeddings, self._bank.embeddings)
        alike = sources_alike(wanted.embeddings, self._options.same_source, wanted.labels)
        needed = len(set(alike)) * (1 + request.attempt)
        if needed > len(self._bank.sounds):
            raise InputError(
                f"{request.key}: {needed} different sounds are needed, those that were rejected among them, and the "
                f"bank has {len(self._bank.sounds)}"
            )
        nearness = similarity - wanted.predicted[:, None] * self._hubness
        for _ in range(request.attempt):  # something in the nearest sounds was rejected: they are not played again
            nearness[:, assigned_sounds(nearness, alike)] = EXCLUDED
        mix = self._best_mix(request, wanted, nearness, alike, samples)
        details = {
            "method": "retrieval",
            "bank": self.identity,
            "sounds": self._sounds(wanted, similarity, mix),
            "scaled_by_decibels": mix.decibels,
        }
        return Rendering(mix.waveform, mix.score, details)

    def _best_mix(
        self, request: SoundRequest, wanted: _Wanted, nearness: np.ndarray, alike: list[int], samples: int
    ) -> _Mix:
        """Mixes the nearest sounds, then, of several sources, tries others that are near, one kind after the other."""
        loudness = wanted.loudness(self._options.loudness)

        @cache
        def layer(place: int, sound: int) -> _Layer:
            generator = np.random.default_rng([abs(request.seed), wanted.numbers[place]])
            return self._layer(sound, float(loudness[place]), samples, generator)

        def trial(chosen: list[int]) -> _Mix:
            layers = [layer(place, sound) for place, sound in enumerate(chosen)]
            waveform, decibels = mixed([each.waveform for each in layers])
            return _Mix(layers, waveform, decibels, self._score(waveform, request))

        chosen = assigned_sounds(nearness, alike)
        best = trial(chosen)
        if len(set(alike)) == 1:  # of one source the mix knows no more than the source does
            return best
        loudest_first = np.argsort(-wanted.weights, kind="stable")
        for kind in dict.fromkeys(alike[place] for place in loudest_first if wanted.predicted[place]):
            for other in alternatives(chosen, kind, nearness, alike, self._options.candidates):
                if (found := trial(other)).score > best.score:
                    chosen, best = other, found
        return best

    def _sounds(self, wanted: _Wanted, similarity: np.ndarray, mix: _Mix) -> list[dict[str, Any]]:
        """Tells which real sound each source became, how loud it is in the mix, and whose it is."""
        return [
            {
                "source_index": number,
                "source_label": label,
                "weight": float(weight),
                "similarity": round(float(row[layer.sound]), 4),
                "loudness": round(layer.loudness + mix.decibels, 2),
                "arrangement": layer.arrangement,
                **self._credits(self._bank.sounds[layer.sound]),
            }
            for number, label, weight, row, layer in zip(
                wanted.numbers, wanted.labels, wanted.weights, similarity, mix.layers, strict=True
            )
        ]

    def _wanted(self, request: SoundRequest) -> _Wanted:
        embedding, sources, weights = (part.numpy() for part in (request.embedding, request.sources, request.weights))
        labels, heard = request.labels, request.heard or (False,) * len(sources)
        if len(sources) == 0:
            sources, weights, labels, heard = embedding[None], np.ones(1, np.float32), ("",), (False,)
        widths = {embedding.shape, *(source.shape for source in sources)}
        if widths != {(self.width,)} or not len(weights) == len(labels) == len(heard) == len(sources):
            raise InputError(
                f"{request.key}: embedding {list(embedding.shape)}, sources {list(sources.shape)}, weights "
                f"{list(weights.shape)} and {len(labels)} labels do not go together; this bank is {self.width} wide"
            )
        for name, part in (("embedding", embedding[None]), ("sources", sources)):
            if not np.isfinite(part).all() or not part.any(axis=1).all():
                raise InputError(f"{request.key}: {name} holds a zero vector or numbers that are not finite")
        if not (np.isfinite(weights).all() and (weights >= 0).all() and (weights > 0).any()):
            raise InputError(
                f"{request.key}: weights are {weights.tolist()}; none may be negative, one must be above 0"
            )
        used = np.flatnonzero(weights > 0)
        numbers = tuple(used.tolist())
        return _Wanted(
            numbers,
            tuple(labels[n] for n in numbers),
            sources[used],
            weights[used].astype(np.float64),
            ~np.array(heard)[used],
        )

    def _layer(self, sound: int, level: float, samples: int, generator: np.random.Generator) -> _Layer:
        about = self._bank.sounds[sound]
        waveform, arrangement = arranged(self._waveform(about), samples, self.sample_rate, generator)
        try:
            return _Layer(sound, level, arrangement, at_loudness(waveform, self.sample_rate, level))
        except ValueError as error:
            raise InputError(f"{self._bank.folder / about.file}: {error}; leave it out of the bank") from error

    def _score(self, waveform: np.ndarray, request: SoundRequest) -> float:
        heard = at_rate(waveform, self.sample_rate, self._encoder.sample_rate)
        (embedding,) = self._encoder.encode([heard])
        return float(torch.nn.functional.cosine_similarity(embedding, request.embedding.float(), dim=0))

    def _credits(self, sound: BankSound) -> dict[str, Any]:
        return {name: value for name, value in asdict(sound).items() if name not in ("group", "split")}


def mixed(layers: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Sums sounds, made quieter as a whole where the peak would pass :data:`HIGHEST_PEAK`.

    Args:
        layers: float32 [samples] each.

    Returns:
        float32 [samples], and by how many decibels it was made louder: 0 or less.
    """
    total = np.sum(layers, axis=0, dtype=np.float64)
    factor = min(1.0, HIGHEST_PEAK / max(float(np.abs(total).max()), 1e-12))
    return (total * factor).astype(np.float32), 20 * math.log10(factor)


def _identity(whole: Bank, used: Bank, retrieval: RetrievalOptions) -> str:
    """Names a bank, what of it is used, unless that is all, and how sounds are chosen and mixed."""
    part = ""
    if len(used.sounds) < len(whole.sounds):
        digest = hashlib.sha256("\n".join(sound.file for sound in used.sounds).encode()).hexdigest()
        part = f"-{len(used.sounds)}of{len(whole.sounds)}-{digest[:8]}"
    return identify(f"sound-bank/{whole.folder.name}", sha256_of(whole.folder / BANK), f"{retrieval.summary}{part}")


def _restricted(bank: Bank, splits: list[str] | None, exclude_groups: list[str] | None) -> Bank:
    """Leaves out what may not be used."""
    known = sorted({sound.split for sound in bank.sounds})
    for split in splits or ():
        if split not in known:
            raise InputError(f"{bank.folder}: has no split {split!r}; {did_you_mean(split, known)}")
    excluded = {*(exclude_groups or ())}
    kept = [
        number
        for number, sound in enumerate(bank.sounds)
        if (splits is None or sound.split in splits) and sound.group not in excluded
    ]
    if not kept:
        raise InputError(f"{bank.folder}: splits and exclude_groups leave no sound of {len(bank.sounds)}")
    return replace(bank, sounds=tuple(bank.sounds[number] for number in kept), embeddings=bank.embeddings[kept])
