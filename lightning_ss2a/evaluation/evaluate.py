"""Measures folders of generated sounds: lists, hears and scores them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightning_ss2a.evaluation.av_benchmark.reading import CacheFolder
from lightning_ss2a.evaluation.bounds import Bound, measure_bounds
from lightning_ss2a.evaluation.folders import Folders, Item, Problem, SoundFolder
from lightning_ss2a.evaluation.gathering import Gathering
from lightning_ss2a.evaluation.hearing import Ear, HeardFiles, Listener, hear_files
from lightning_ss2a.evaluation.measures import Measure, Rows
from lightning_ss2a.evaluation.planning import HearingPlan, Protocol, plan_hearing
from lightning_ss2a.evaluation.protocols import WaveformEncoder, hears_sounds
from lightning_ss2a.evaluation.scoring import Difference, PartScore, Score, Scorer
from lightning_ss2a.evaluation.sounds import SoundFacts


@dataclass(frozen=True)
class FolderFacts:
    """What the sounds of a folder are like.

    Attributes:
        folder: name of the method, or reference.
        expected: items that there are.
        usable: of which a sound could be heard.
        silent: of which no sample reaches -80 dB; None, as of the next: the sounds are not there, only caches.
        clipped: with a run of samples at the end of the scale.
        seconds: least, median and most; NaN: there are none.
        sha256: of all that was heard, by name and content.
    """

    folder: str
    expected: int
    usable: int
    silent: int | None
    clipped: int | None
    seconds: tuple[float, float, float]
    sha256: str


@dataclass(frozen=True)
class Evaluation:
    """All that came of an evaluation.

    Attributes:
        items: names of the items, in order.
        measured: the measures that could be taken, by name.
        values: of each item, by method, then by name of a measure of items; NaN where something is missing.
        facts: of each folder of sounds.
        problems: what is missing or cannot be used.
        notes: what else is to be known.
        bounds: what scores are to be compared with.
        identities: of the models, and of caches that were read.
        heard: what was heard of the items, by folder of sounds, then by ear.
        encoders: by name.
    """

    items: Sequence[str]
    measured: Mapping[str, Measure]
    scores: Sequence[Score]
    differences: Sequence[Difference]
    parts: Sequence[PartScore]
    values: Mapping[str, Mapping[str, np.ndarray]]
    facts: Sequence[FolderFacts]
    problems: Sequence[Problem]
    notes: Sequence[str]
    bounds: Sequence[Bound] = ()
    identities: Mapping[str, str] = field(default_factory=dict)
    heard: Mapping[str, Mapping[str, Rows]] = field(default_factory=dict)
    encoders: Mapping[str, WaveformEncoder] = field(default_factory=dict)


def evaluate_folders(
    folders: Folders, items: Sequence[Item], protocol: Protocol, listener: Listener, problems: Iterable[Problem] = ()
) -> Evaluation:
    """Measures the sounds of all methods.

    Measures that want a folder, or texts, that are not given are left out, and a note says so. An item that a method
    lacks, or that cannot be used, is not among the items of its scores, and is among the problems.

    Args:
        folders: of methods, reference, pictures and videos.
        items: what is measured.
        protocol: how.
        listener: how files are heard.
        problems: that are known already.

    Raises:
        InputError: no measure can be taken, or a model cannot run.
    """
    plan = plan_hearing(folders, items, protocol)
    plan.load(protocol)
    measured, places = plan.measured, plan.places
    found = [*problems, *plan.problems]
    heard = hear_files(plan.files, plan.here, listener)
    notes = [*plan.notes, *_not_listed(plan, found)]
    notes += _take_caches(places.values(), items, plan.sounds, plan.ears, heard, found)
    sounds = {name: _usable(name, items, paths, heard, found) for name, paths in plan.sounds.items()}
    gathering = Gathering(folders, items, protocol, plan, listener, heard, found)
    rows = {name: gathering.rows(paths, plan.ears) for name, paths in sounds.items()}
    evidence = gathering.evidence(sounds, rows)
    scorer = Scorer(items, evidence, protocol.bootstrap)
    columns = {name: scorer.score(name, measure) for name, measure in measured.items()}
    return Evaluation(
        items=[item.name for item in items],
        measured=measured,
        scores=[score for scores, _ in columns.values() for score in scores],
        differences=[difference for _, differences in columns.values() for difference in differences],
        parts=[part for name, measure in measured.items() for part in scorer.parts(name, measure)],
        values=scorer.values(measured),
        facts=[_facts(name, items, paths, heard) for name, paths in sounds.items()],
        problems=sorted(set(found), key=lambda problem: (problem.folder, problem.item, problem.reason)),
        notes=[*notes, *_not_comparable(scorer), *scorer.notes],
        bounds=measure_bounds(items, evidence, measured, protocol.bootstrap),
        identities={name: model.identity for name, model in plan.models.items()} | _cache_identities(places.values()),
        heard=rows,
        encoders=protocol.encoders,
    )


def _not_listed(plan: HearingPlan, problems: Sequence[Problem]) -> list[str]:
    """Counts the sounds that belong to no row of a csv file: without one they are among the problems."""
    notes = []
    for name, folder in plan.places.items():
        told, used = {problem.item for problem in problems if problem.folder == name}, {*plan.sounds[name]}
        others = [sound for sound, path in folder.files.items() if path not in used and sound not in told]
        if others:
            notes.append(f"{name}: sounds that no item names, not measured: {len(others)}, the first {others[0]}")
    return notes


def _not_comparable(scorer: Scorer) -> list[str]:
    """Warns of places in columns in which methods have not the same items."""
    if not scorer.uneven:
        return []
    return [
        f"{', '.join(scorer.uneven)}: not of the same items for all methods, so that places may say what is missing; "
        "differences.csv compares each two on the items that both have"
    ]


def _take_caches(
    places: Iterable[SoundFolder],
    items: Sequence[Item],
    sounds: Mapping[str, Sequence[Path | None]],
    ears: Mapping[str, Ear],
    heard: HeardFiles,
    problems: list[Problem],
) -> list[str]:
    """Adds what av-benchmark heard; gives notes of what is not there, or was heard in two ways."""
    for name in ears:
        heard.rows.setdefault(name, {})
    caches = [place for place in places if isinstance(place, CacheFolder)]
    others = [place for place in places if not isinstance(place, CacheFolder)]
    for cache in caches:
        lacking = cache.take(ears, heard)
        for item, path in zip(items, sounds[cache.name], strict=True):
            if path in lacking:
                problems.append(Problem(cache.name, item.name, lacking[path]))
    notes = [
        f"{cache.name}: av-benchmark's caches in {cache.root} do not have {name}"
        for cache in caches
        for name, ear in ears.items()
        if not cache.has(ear)
    ]
    for name, ear in ears.items():
        theirs = [cache.name for cache in caches if cache.has(ear)]
        ours = [place.name for place in others]
        if ours and not hears_sounds(ear.encoder):
            notes.append(f"{', '.join(ours)}: {name} is known from av-benchmark's caches only")
        elif ours and theirs:
            notes.append(
                f"{name}: heard by av-benchmark in {', '.join(theirs)}, here in {', '.join(ours)}; it takes each "
                "sound's mean away, resamples and cuts in its own way, so that small differences may be these"
            )
    return notes


def _cache_identities(places: Iterable[SoundFolder]) -> dict[str, str]:
    return {
        f"{place.name}/{file}": identity
        for place in places
        if isinstance(place, CacheFolder)
        for file, identity in place.identities.items()
    }


def _usable(
    folder: str, items: Sequence[Item], paths: Sequence[Path | None], heard: HeardFiles, problems: list[Problem]
) -> list[Path | None]:
    """Keeps the files that could be heard; the others become problems."""
    for item, path in zip(items, paths, strict=True):
        if path in heard.problems:
            problems.append(Problem(folder, item.name, heard.problems[path]))
    return [None if path in heard.problems else path for path in paths]


def _facts(folder: str, items: Sequence[Item], paths: Sequence[Path | None], heard: HeardFiles) -> FolderFacts:
    there = [(item.name, path) for item, path in zip(items, paths, strict=True) if path is not None]
    facts: list[SoundFacts] = [heard.facts[path] for _, path in there if path in heard.facts]
    known = len(facts) == len(there)
    seconds = [each.seconds for each in facts] or [float("nan")]
    listing = "\n".join(f"{name} {heard.content[path]}" for name, path in there)
    return FolderFacts(
        folder=folder,
        expected=len(paths),
        usable=len(there),
        silent=sum(each.silent for each in facts) if known else None,
        clipped=sum(each.clipped > 0 for each in facts) if known else None,
        seconds=(min(seconds), float(np.median(seconds)), max(seconds)),
        sha256=hashlib.sha256(listing.encode()).hexdigest(),
    )
