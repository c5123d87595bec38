"""Plans an evaluation: what its protocol measures, and what is to be heard and seen for that."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.evaluation.av_benchmark.reading import CacheFolder
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
from lightning_ss2a.evaluation.hearing import Ear
from lightning_ss2a.evaluation.measures import Measure, Side
from lightning_ss2a.evaluation.perception_encoders import PerceptionEncoder
from lightning_ss2a.evaluation.protocols import (
    SyncEstimator,
    WaveformEncoder,
    hears_frames,
    hears_sounds,
    tells_classes,
)
from lightning_ss2a.evaluation.scoring import Bootstrap
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.perception.detectors.crops import CropShape
from lightning_ss2a.perception.encoders.protocols import ImageEncoder, TextEncoder
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
