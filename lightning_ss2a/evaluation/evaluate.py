"""Measures folders of generated sounds: lists, hears and scores them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.evaluation.av_benchmark.reading import CacheFolder
from lightning_ss2a.evaluation.bounds import Bound, measure_bounds
from lightning_ss2a.evaluation.folders import (
    REFERENCE,
    Folders,
    Item,
    MediaFolder,
    Problem,
    SoundFolder,
    locate,
    why_missing,
)
from lightning_ss2a.evaluation.hearing import Ear, HeardFiles, Listener, hear_files, hear_offsets
from lightning_ss2a.evaluation.measures import Evidence, Measure, Rows, Side
from lightning_ss2a.evaluation.perception_encoders import PerceptionEncoder
from lightning_ss2a.evaluation.protocols import (
    SyncEstimator,
    WaveformEncoder,
    hears_frames,
    hears_sounds,
    tells_classes,
)
from lightning_ss2a.evaluation.scoring import Bootstrap, Difference, PartScore, Score, Scorer
from lightning_ss2a.evaluation.sounds import SoundFacts
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.perception.detectors.crops import CropShape
from lightning_ss2a.perception.encoders.protocols import ImageEncoder, TextEncoder
from lightning_ss2a.perception.encoding import EncodedMedia, encode_images
from lightning_ss2a.perception.weights import Described, check_weights, load_models


@dataclass(frozen=True)
class Protocol:
    """What is measured, and by whom.

    Args:
        measures: by the names of their columns, in order.
        encoders: of waveforms, by the names that measures call them.
        image_encoder: of pictures, into the space of the encoders that a CLIP score is of.
        text_encoder: of texts, for the CLAP score.
        sync: tells sounds' offsets from their videos.
        seconds: how much of each sound is heard, from its start; None: all.
        crop_shape: how pictures become squares.
        bootstrap: how intervals are made.

    Raises:
        InputError: a measure names an encoder that is not there, or that tells no classes where it has to.
    """

    measures: Mapping[str, Measure]
    encoders: Mapping[str, WaveformEncoder]
    image_encoder: ImageEncoder | None = None
    text_encoder: TextEncoder | None = None
    sync: SyncEstimator | None = None
    seconds: float | None = 10.0
    crop_shape: CropShape = "padded"
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def __post_init__(self) -> None:
        """Checks that measures have what they read."""
        if not self.measures:
            raise InputError("measures is empty: name a protocol, for example -c configs/evaluation/demo.yaml")
        OptionCheck().at_least(0.01, seconds=self.seconds)
        parts = {"images": self.image_encoder, "text": self.text_encoder, "videos": self.sync}
        options = {"images": "image_encoder", "text": "text_encoder", "videos": "sync"}
        for name, measure in self.measures.items():
            self._check_encoder(name, measure)
            for side in measure.needs:
                if side in parts and parts[side] is None:
                    raise InputError(f"measures.{name}: needs the protocol's {options[side]}")

    def _check_encoder(self, name: str, measure: Measure) -> None:
        if not measure.encoder:
            return
        if measure.encoder not in self.encoders:
            advice = did_you_mean(measure.encoder, self.encoders)
            raise InputError(f"measures.{name}.encoder: {measure.encoder} is not among the encoders; {advice}")
        if measure.labelled and not tells_classes(self.encoders[measure.encoder]):
            raise InputError(f"measures.{name}.encoder: {measure.encoder} tells no classes; take one that does")
        if measure.frames and not hears_frames(self.encoders[measure.encoder]):
            raise InputError(f"measures.{name}.frames: {measure.encoder} hears no frames; take one that does")


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


@dataclass(frozen=True)
class HearingPlan:
    """What is to be heard and seen for an evaluation, and by whom.

    Attributes:
        measured: measures that can be taken, by name.
        needs: what these want beside sounds.
        places: folders of sounds, by name.
        sounds: of each, the items' files; None where one is missing.
        ears: what is kept of sounds, by name.
        here: those of them that hear sounds in this evaluation.
        models: all that run, by name.
        pictures: of each item; None: one is missing.
        videos: of each item; None: it is missing.
        problems: what is missing.
        notes: why measures are left out.
    """

    measured: Mapping[str, Measure]
    needs: set[Side]
    places: Mapping[str, SoundFolder]
    sounds: Mapping[str, Sequence[Path | None]]
    ears: Mapping[str, Ear]
    here: Mapping[str, Ear]
    models: Mapping[str, "WaveformEncoder | ImageEncoder | TextEncoder | SyncEstimator"]
    pictures: Sequence[Sequence[Path] | None]
    videos: Sequence[Path | None]
    problems: Sequence[Problem]
    notes: Sequence[str]

    @property
    def files(self) -> list[Path]:
        """The sounds that are heard here, each once, in order."""
        media = [paths for name, paths in self.sounds.items() if isinstance(self.places[name], MediaFolder)]
        return sorted({path for paths in media for path in paths if path is not None})

    @property
    def picture_files(self) -> list[str]:
        """The pictures, each once, in order."""
        return sorted({str(path) for paths in self.pictures for path in paths or ()})

    def pairs(self, method: str, sounds: Sequence[Path | None]) -> list[tuple[Path, Path] | None]:
        """Gives sound and video of each item of a method; None: one is missing, or its sounds are caches."""
        if isinstance(self.places[method], CacheFolder):
            return [None] * len(sounds)
        both = zip(sounds, self.videos, strict=True)
        return [None if sound is None or video is None else (sound, video) for sound, video in both]

    def check(self) -> None:
        """Checks that the models' files are there.

        Raises:
            InputError: names all that are missing.
        """
        check_weights(model.describe() for model in self.models.values() if isinstance(model, Described))

    def load(self, protocol: Protocol) -> None:
        """Loads the models, and checks the measures' options against what these tell.

        Raises:
            InputError: see :meth:`check`; or an option is out of the range of a model.
        """
        self.check()
        load_models(self.models.values())
        for name, measure in self.measured.items():
            measure.check(name, protocol.encoders.get(measure.encoder), protocol.sync)


def plan_hearing(folders: Folders, items: Sequence[Item], protocol: Protocol) -> HearingPlan:
    """Finds out what an evaluation has to hear and see.

    Raises:
        InputError: no measure can be taken.
    """
    measured, notes = _choose(protocol.measures, folders, items)
    needs = {side for measure in measured.values() for side in measure.needs}
    ears = _ears(protocol.encoders, measured.values())
    places = _sound_folders(folders)
    here = _heard_here(ears, places.values())
    used = {measure.encoder for measure in measured.values() if measure.ear in here}
    problems: list[Problem] = []
    sounds = {
        name: _locate(folder, items, REFERENCE if name == REFERENCE else "sound", problems)
        for name, folder in places.items()
    }
    pictures: Sequence[Sequence[Path] | None] = [None] * len(items)
    if "images" in needs and folders.images is not None:
        pictures = [locate(item, folders.images, "image") for item in items]
    videos: Sequence[Path | None] = [None] * len(items)
    if "videos" in needs and folders.videos is not None:
        videos = _locate(folders.videos, items, "video", problems)
    models = _models(protocol, used, needs)
    return HearingPlan(measured, needs, places, sounds, ears, here, models, pictures, videos, problems, notes)


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
    gathering = _Gathering(folders, items, protocol, plan, listener, heard, found)
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
            notes.append(f"{name}: {len(others)} sounds that no item names are not measured, the first: {others[0]}")
    return notes


def _not_comparable(scorer: Scorer) -> list[str]:
    """Warns of places in columns in which methods have not the same items."""
    if not scorer.uneven:
        return []
    return [
        f"{', '.join(scorer.uneven)}: not of the same items for all methods, so that places may say what is missing; "
        "differences.csv compares each two on the items that both have"
    ]


def _choose(
    measures: Mapping[str, Measure], folders: Folders, items: Sequence[Item]
) -> tuple[dict[str, Measure], list[str]]:
    """Chooses the measures that can be taken; says why others cannot."""
    given: dict[Side, bool] = {
        "reference": folders.reference is not None,
        "images": folders.images is not None,
        "videos": folders.videos is not None,
        "text": any(item.text for item in items),
    }
    wanted: dict[Side, str] = {"text": "--pairs with a column text"}
    missing = {name: [side for side in measure.needs if not given[side]] for name, measure in measures.items()}
    notes = [
        f"{name} is not measured: it needs {' and '.join(wanted.get(side, f'--{side}') for side in sides)}"
        for name, sides in missing.items()
        if sides
    ]
    chosen = {name: measure for name, measure in measures.items() if not missing[name]}
    if not chosen:
        raise InputError(f"nothing can be measured: {'; '.join(notes)}")
    return chosen, notes


def _ears(encoders: Mapping[str, WaveformEncoder], measures: Iterable[Measure]) -> dict[str, Ear]:
    """Lists what measures read of sounds, in the order of the encoders."""
    wanted = {measure.ear: measure for measure in measures if measure.encoder}
    order = [*encoders]
    ordered = sorted(wanted.items(), key=lambda item: (order.index(item[1].encoder), item[0]))
    return {name: Ear(encoders[measure.encoder], measure.frames) for name, measure in ordered}


def _heard_here(ears: Mapping[str, Ear], places: Iterable[SoundFolder]) -> dict[str, Ear]:
    """Lists the ears that hear a sound: none, where there are only caches."""
    if not any(isinstance(place, MediaFolder) for place in places):
        return {}
    return {name: ear for name, ear in ears.items() if hears_sounds(ear.encoder)}


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


def _models(
    protocol: Protocol, encoders: set[str], needs: set[Side]
) -> dict[str, "WaveformEncoder | ImageEncoder | TextEncoder | SyncEstimator"]:
    """Lists the models that are used, those of perception themselves."""
    parts = {"image_encoder": ("images", protocol.image_encoder), "text_encoder": ("text", protocol.text_encoder)}
    others = {**parts, "sync": ("videos", protocol.sync)}
    used = {name: model for name, (side, model) in others.items() if side in needs and model is not None}
    inner = {
        name: x.encoder if isinstance(x, PerceptionEncoder) else x
        for name, x in protocol.encoders.items()
        if name in encoders
    }
    return {**inner, **used}


def _sound_folders(folders: Folders) -> dict[str, SoundFolder]:
    reference = {} if folders.reference is None else {folders.reference.name: folders.reference}
    return {**folders.methods, **reference}


def _locate(folder: SoundFolder, items: Sequence[Item], kind: str, problems: list[Problem]) -> list[Path | None]:
    """Finds each item's sound in a folder; what is not there becomes a problem."""
    found: list[Path | None] = []
    for item in items:
        paths = locate(item, folder, kind)
        if paths is None:
            problems.append(Problem(folder.name, item.name, why_missing(item, folder, kind)))
        found.append(paths[0] if paths else None)
    return found


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


@dataclass(frozen=True)
class _Gathering:
    """Brings what was heard and seen into the order of the items."""

    folders: Folders
    items: Sequence[Item]
    protocol: Protocol
    plan: HearingPlan
    listener: Listener
    heard: HeardFiles
    problems: list[Problem]

    def evidence(
        self, sounds: Mapping[str, Sequence[Path | None]], rows: Mapping[str, Mapping[str, Rows]]
    ) -> dict[str, Evidence]:
        """Gives what is known of each method, of which and of the reference the rows are given."""
        needs = self.plan.needs
        reference = rows.get("reference", {})
        images = self._images() if "images" in needs else None
        text = self._text() if "text" in needs else None
        offsets = self._offsets(sounds) if "videos" in needs else {}
        seconds = () if self.protocol.sync is None else self.protocol.sync.offsets
        return {
            method: Evidence(rows[method], reference, images, text, offsets.get(method, ()), tuple(seconds))
            for method in self.folders.methods
        }

    def rows(self, paths: Sequence[Path | None], ears: Mapping[str, Ear]) -> dict[str, Rows]:
        """Gives what is heard in the files of the items."""
        found = {}
        for name, ear in ears.items():
            known = [None if path is None else self.heard.rows[name].get(path) for path in paths]
            if ear.frames:
                found[name] = _frames(known, ear.numbers)
                continue
            rows = _rows([None if each is None else each[0] for each in known], ear.numbers)
            logits = rows.embeddings[:, ear.encoder.width :]
            embeddings = rows.embeddings[:, : ear.encoder.width]
            found[name] = Rows(rows.there, embeddings, logits if logits.shape[1] else None)
        return found

    def _images(self) -> Rows:
        """Embeds the pictures of each item; an item of which one cannot be used has none."""
        folder, encoder = self.folders.images, self.protocol.image_encoder
        if folder is None or encoder is None:
            raise InputError("images need a folder and an image_encoder")
        files = self.plan.pictures
        media = see_pictures(self.plan.picture_files, encoder, self.protocol.crop_shape, self.listener)
        embeddings = dict(zip(media.cached, media.embeddings(media.cached)[:, 0] if media.cached else (), strict=True))
        things: list[list[np.ndarray]] = []
        for item, paths in zip(self.items, files, strict=True):
            reasons = [media.problems[str(path)] for path in paths or [] if str(path) in media.problems]
            if paths is None:
                reasons = [why_missing(item, folder, "image")]
            self.problems.extend(Problem(folder.name, item.name, reason) for reason in reasons)
            things.append([] if reasons else [embeddings[str(path)] for path in paths or []])
        return _ragged(things, encoder.width)

    def _text(self) -> Rows:
        encoder = self.protocol.text_encoder
        texts = {item.text: None for item in self.items if item.text}
        if encoder is None or not texts:
            raise InputError("texts need a csv file with a column text, and a text_encoder")
        encoded = dict(zip(texts, encoder.encode([*texts]).numpy(), strict=True))
        known = {text: embedding for text, embedding in encoded.items() if np.isfinite(embedding).all()}
        for item in self.items:
            if not item.text:
                self.problems.append(Problem("text", item.name, "has no text in the csv file"))
            elif item.text not in known:
                reason = f"{encoder.identity} gave NaN or infinity for {item.text!r}; write it otherwise"
                self.problems.append(Problem("text", item.name, reason))
        return _rows([known.get(item.text) for item in self.items], encoder.width)

    def _offsets(self, sounds: Mapping[str, Sequence[Path | None]]) -> dict[str, list[Tensor | None]]:
        """Has the estimator hear each method's sounds with the items' videos."""
        estimator = self.protocol.sync
        if estimator is None:
            raise InputError("offsets need sync")
        pairs = {method: self.plan.pairs(method, sounds[method]) for method in self.folders.methods}
        known = [pair for each in pairs.values() for pair in each if pair is not None]
        logits, reasons = hear_offsets(known, self.heard.content, estimator, self.listener)
        found = {}
        for method, each in pairs.items():
            for item, pair in zip(self.items, each, strict=True):
                if pair in reasons:
                    self.problems.append(Problem(method, item.name, reasons[pair]))
            rows = [None if pair is None else logits.get(pair) for pair in each]
            found[method] = [None if row is None else torch.from_numpy(row) for row in rows]
        return found


def see_pictures(
    references: Sequence[str], encoder: ImageEncoder, crop_shape: CropShape, listener: Listener
) -> EncodedMedia:
    """Encodes pictures, each once, through the cache."""
    return encode_images(references, Path(), encoder, 1, listener.cache, 0, listener.progress, crop_shape)


def _rows(found: Sequence[np.ndarray | None], width: int) -> Rows:
    """Stacks arrays [width]; zeros where there is none."""
    empty = np.zeros(width, np.float32)
    stacked = np.stack([empty if array is None else array for array in found])
    return Rows(torch.tensor([array is not None for array in found]), torch.from_numpy(stacked))


def _frames(found: Sequence[np.ndarray | None], width: int) -> Rows:
    """Joins frames, [frames, width] an item; none where there is no item."""
    empty = np.zeros((0, width), np.float32)
    frames = [empty if array is None else array for array in found]
    owners = torch.arange(len(frames)).repeat_interleave(torch.tensor([*map(len, frames)]))
    there = torch.tensor([array is not None for array in found])
    return Rows(there, torch.from_numpy(np.concatenate(frames)), owners=owners)


def _ragged(things: Sequence[Sequence[np.ndarray]], width: int) -> Rows:
    """Stacks several arrays [width] an item."""
    most = max(1, max(map(len, things)))
    embeddings, visible = np.zeros((len(things), most, width), np.float32), np.zeros((len(things), most), bool)
    for number, arrays in enumerate(things):
        for place, array in enumerate(arrays):
            embeddings[number, place], visible[number, place] = array, True
    seen = torch.from_numpy(visible)
    return Rows(seen.any(1), torch.from_numpy(embeddings), visible=seen)
