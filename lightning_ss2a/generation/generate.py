"""``ss2a generate``: sounds of pictures, texts, sounds and videos, one or many."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_ss2a import __version__
from lightning_ss2a.builders.engine.media_worker import MediaNeeds, Preparations
from lightning_ss2a.builders.engine.module import Stack
from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.builders.engine.running import make_trainer
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import FolderLock, make_folder, to_path
from lightning_ss2a.generation.items import Item
from lightning_ss2a.generation.listening import Tagger
from lightning_ss2a.generation.mixing.methods import MapperMixer, MeanMixer, Mixer, OracleMixer, SS2AMixer
from lightning_ss2a.generation.module import GenerationModule
from lightning_ss2a.generation.options import Checkpoints, SoundOptions
from lightning_ss2a.generation.outputs import Maker, refuse_media_as_sounds, remove_unfinished, write_failed
from lightning_ss2a.generation.own_process import GuardedReader, OwnProcess
from lightning_ss2a.generation.protocols import SoundGenerator
from lightning_ss2a.generation.running import ItemsData, WorkFolder, make_all
from lightning_ss2a.generation.scene.labels import LabelMeanings, Unwanted
from lightning_ss2a.generation.scene.media import ItemMedia, MediaReading
from lightning_ss2a.generation.scene.perceiving import PerceivedItem, Perceiver
from lightning_ss2a.generation.scene.scene_file import SceneFile, read_scene
from lightning_ss2a.generation.sounding import Sounder, calibrate
from lightning_ss2a.generation.trained import Trained, check_encoders, check_widths, load_trained
from lightning_ss2a.models import CycleMixOptions
from lightning_ss2a.options import OptionCheck, plain
from lightning_ss2a.perception.detectors.crops import MOST_SOURCES, CropShape, shown_as
from lightning_ss2a.perception.encoders.protocols import AudioEncoder, PreparingImageEncoder
from lightning_ss2a.perception.media.video import VideoReader
from lightning_ss2a.perception.weights import Described, check_weights

BATCH_SIZE = 8
"""Items at once, if no number is given."""


@dataclass(frozen=True)
class Report:
    """What became of the items of a call.

    Attributes:
        made: keys of those that were made.
        kept: keys of those that were there already.
        failed: (key, place, reason) of those of which nothing was made.
        notes: what a listener should know of a sound, by key.
    """

    made: tuple[str, ...]
    kept: tuple[str, ...]
    failed: tuple[tuple[str, str, str], ...]
    notes: dict[str, str]


@dataclass(frozen=True, eq=False)
class Perception:
    """What perceives items.

    Attributes:
        stack: the models.
        video_reader: reads videos.
        crop_shape: how boxes and frames become squares.
        most_sources: detected in a picture at most, the surest.
        without: sources to drop, by what they are called.
    """

    stack: Stack
    video_reader: VideoReader
    crop_shape: CropShape = "padded"
    most_sources: int = MOST_SOURCES
    without: tuple[str, ...] = ()

    def unwanted(self) -> Unwanted | None:
        """Finds out what the words mean that are not to be heard.

        Raises:
            InputError: one means nothing, so that nobody could tell whether it is heard.
        """
        if not self.without:
            return None
        unwanted = Unwanted.of_words(self.without, LabelMeanings.with_minilm())
        for word in unwanted.without_meaning():
            raise InputError(
                f"without {word!r}: is no class of AudioSet, and means none; a source of this name is left out by "
                f"--weight {word!r}=0"
            )
        return unwanted

    def perceiver(self, unwanted: Unwanted | None) -> Perceiver:
        """Makes what finds sources."""
        encoder = self.stack.image_encoder
        prepare = encoder.prepare if isinstance(encoder, PreparingImageEncoder) else None
        rate = self.stack.audio_encoder.sample_rate
        needs = MediaNeeds("scenes", Path(), rate, self.video_reader, Preparations(image=prepare), self.crop_shape)
        return Perceiver(self.stack, needs, self.most_sources, unwanted)

    def used(self, uses: "Uses") -> dict[str, Any]:
        """Picks the models that items need, by the name of their option.

        Raises:
            InputError: one is not named, the files of some are missing, or two are not of one space.
        """
        stack = self.stack
        if uses.detects and stack.detector is None:
            raise InputError("detector is missing: it finds the sources in pictures; see configs/perception/")
        translates = uses.reads and stack.sound_prior is None  # texts to pictures
        if translates and (stack.prior is None or stack.reader is None):
            missing = "prior" if stack.prior is None else "text_encoder"
            raise InputError(f"{missing} is missing: it is what texts are read by; see configs/perception/")
        if translates and stack.prior is not None and stack.prior.width != stack.image_encoder.width:
            raise InputError(
                f"prior gives embeddings of width {stack.prior.width}, image_encoder of {stack.image_encoder.width}: "
                "they are not of one space"
            )
        wanted = {
            "image_encoder": uses.sees, "audio_encoder": uses.hears, "detector": uses.detects,
            "text_encoder": translates, "prior": translates, "sound_prior": uses.reads,
        }  # fmt: skip
        models = {name: model for name, model in stack.models.items() if wanted[name]}
        check_weights(model.describe() for model in models.values() if isinstance(model, Described))
        return models


@dataclass(frozen=True)
class Uses:
    """What items, and what is made of them, need of a stack.

    Attributes:
        sees: pictures or videos.
        detects: sources in these.
        reads: texts.
        hears: sounds.
        has_sounds: sounds among the sources.
    """

    sees: bool
    detects: bool
    reads: bool
    hears: bool
    has_sounds: bool

    @classmethod
    def of(cls, items: Sequence[Item], options: SoundOptions, listens: bool) -> "Uses":
        """Looks through items; of a scene file that cannot be read nothing is known yet."""
        scenes = [scene for item in items if (scene := _scene(item)) is not None]
        modalities = {source.modality for scene in scenes for source in scene.sources}
        frames = any(item.videos for item in items) and options.method != "oracle"
        sounds = "audio" in modalities or any(item.audios for item in items) or options.method == "oracle"
        images = any(item.images for item in items)
        return cls(
            sees=images or frames or "image" in modalities or any(scene.pictures for scene in scenes),
            detects=images or (frames and options.frames == "detected"),
            reads="text" in modalities or any(item.texts for item in items),
            hears=sounds or listens,
            has_sounds=sounds,
        )


def perceive_items(
    items: Sequence[Item],
    perception: Perception,
    trainer: BuildTrainer = BuildTrainer(),  # noqa: B008
) -> Iterator[tuple[Item, ItemMedia, PerceivedItem | InputError]]:
    """Perceives items without making a sound of them, one by one; of a video only what is beside it.

    Raises:
        InputError: a model is missing.
    """
    options = SoundOptions()
    perception.used(Uses.of(items, options, listens=False))
    set_precision(perception.stack, trainer.precision)
    perceiver = perception.perceiver(perception.unwanted())
    reading = MediaReading(perception.stack.audio_encoder.sample_rate, perception.video_reader)
    for item in items:
        media = reading.read(item)
        (outcome,) = perceiver.perceive([media])
        yield item, media, outcome


def generate(
    items: Sequence[Item],
    output: str,
    perception: Perception,
    generator: SoundGenerator,
    *,
    options: SoundOptions = SoundOptions(),  # noqa: B008  # frozen
    checkpoints: Checkpoints = Checkpoints(),  # noqa: B008
    cycle_mix: CycleMixOptions | None = None,
    tagger: AudioEncoder | None = None,
    trainer: BuildTrainer = BuildTrainer(),  # noqa: B008
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Report | None:
    """Makes the sounds of items; those that are there already, made of the same request, are kept.

    Args:
        items: what is asked for; their keys differ.
        output: folder of the sounds; other files there stay.
        perception: what perceives them.
        generator: sounds embeddings.
        options: what is made.
        checkpoints: trained modules.
        cycle_mix: options of Cycle Mix; None: those of the Remixer's checkpoint.
        tagger: hears what must not be heard; None: the audio encoder, which needs a label head for it.
        trainer: where it runs.
        batch_size: items at once.
        progress: show items done, items per second and time left.

    Returns:
        what became of them; None in processes other than the first.

    Raises:
        InputError: models, checkpoints and generator are missing or do not go together.
    """
    OptionCheck().at_least(1, batch_size=batch_size)
    uses = Uses.of(items, options, bool(perception.without) and tagger is None)
    models = perception.used(uses)
    set_precision(perception.stack, trainer.precision)
    if isinstance(generator, Described):
        check_weights([generator.describe()])
    trained = load_needed(options, checkpoints, items, uses)
    check_together(models, generator, list(trained.values()), uses, perception.crop_shape)
    unwanted = perception.unwanted()
    listener = Tagger(tagger or perception.stack.audio_encoder, unwanted, options.threshold) if unwanted else None
    place, runner = to_path(output), make_trainer(trainer)
    process = OwnProcess(is_used=len(items) > 1 and trainer.num_workers > 0)
    aggregator = trained["aggregator"].module if "aggregator" in trained else None
    mixer = make_mixer(options, trained, cycle_mix)
    calibrate(generator, mixer)
    module = GenerationModule(
        perception.perceiver(unwanted),
        mixer,
        Sounder(generator, options.seed, listener, options.candidates),
        options,
        GuardedReader(perception.video_reader, process),
        aggregator,
        [each.module for each in trained.values()],
        trainer.threads,
    )
    settings = {
        "generator": generator.identity,
        "generator_hears": generator.audio_encoder,  # what it ranks its candidates by, too
        "options": plain(options),
        "models": {name: str(model.identity) for name, model in models.items()}
        | ({"decoder": perception.video_reader.decoder} if any(item.videos for item in items) else {}),
        "perception": {
            "crop_shape": perception.crop_shape,
            "most_sources": perception.most_sources,
            "without": {word: sorted(meant) for word, meant in unwanted.classes.items()} if unwanted else {},
        },
        "checkpoints": {name: each.sha256 for name, each in trained.items()},
        "cycle_mix": None if cycle_mix is None else plain(cycle_mix),
        "tagger": None if listener is None else listener.identity,
        "versions": {"lightning_ss2a": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "device": runner.strategy.root_device.type,
    }
    paths = {"checkpoints": {name: each.path for name, each in trained.items()}}
    rate = generator.sample_rate
    maker = Maker(generator.identity, generator.is_retrieval, rate, options.loudness, settings, paths)
    reading = MediaReading(
        perception.stack.audio_encoder.sample_rate, perception.video_reader, options.method == "oracle"
    )
    refuse_media_as_sounds(items, place, options.tracks)
    work = WorkFolder(place)
    data = ItemsData(items, batch_size, reading, maker, place, work, trainer.num_workers)
    with _for_writing(place, work, items) if runner.is_global_zero else nullcontext():
        try:
            if not make_all(trainer, runner, module, data, process, progress):
                return None
        finally:
            process.close()
        report = _report(items, work)
        write_failed(place, report.failed)
        work.remove()
    return report


def load_needed(
    options: SoundOptions, checkpoints: Checkpoints, items: Sequence[Item], uses: Uses
) -> dict[str, Trained]:
    """Loads the trained modules that a method needs, by the name of their option.

    Raises:
        InputError: one is missing, or of another stage; or one is named that has no effect.
    """
    method, needed = options.method, []
    if method in ("mean", "cascade"):
        needed.append("remixer" if checkpoints.manifold is None and checkpoints.remixer is not None else "manifold")
    else:
        needed += {"ss2a": ["remixer"], "v2a_mapper": ["mapper"], "oracle": []}[method]
    fuses = any(item.videos for item in items) and method != "oracle"
    if fuses and (method == "ss2a" or checkpoints.aggregator is not None):
        needed.append("aggregator")
    if checkpoints.translator is not None and method == "ss2a":
        needed.append("translator")
    given = {name: path for name, path in asdict(checkpoints).items() if path is not None}
    for name in given:
        if name not in needed and not (name == "aggregator" and method != "oracle"):
            raise InputError(f"{name} has no effect with method {method}")
    return {name: load_trained(name, given.get(name)) for name in needed}


def make_mixer(options: SoundOptions, trained: Mapping[str, Trained], cycle_mix: CycleMixOptions | None) -> Mixer:
    """Makes what mixes by a method, of the modules that it needs.

    Raises:
        InputError: Cycle Mix has options, and is not asked for.
    """
    if cycle_mix is not None and (options.method, options.sampling) != ("ss2a", "cycle_mix"):
        raise InputError("cycle_mix has no effect without method ss2a and sampling cycle_mix")
    if options.method == "ss2a":
        translator = trained["translator"].module.translator if "translator" in trained else None
        return SS2AMixer(trained["remixer"].module, translator, options.sampling, cycle_mix)
    if options.method == "v2a_mapper":
        return MapperMixer(trained["mapper"].module)
    if options.method == "oracle":
        return OracleMixer()
    (module,) = [trained[name].module for name in ("manifold", "remixer") if name in trained]
    return MeanMixer(module.manifold)


def check_together(
    models: Mapping[str, Any],
    generator: SoundGenerator,
    trained: Sequence[Trained],
    uses: Uses,
    crop_shape: CropShape = "padded",
) -> None:
    """Checks that models, trained modules and generator speak of the same embeddings.

    Raises:
        InputError: they do not; names both.
    """
    heard = {"audio_encoder": models["audio_encoder"].identity} if uses.has_sounds else {}
    if "sound_prior" in models:
        heard["sound_prior"] = models["sound_prior"].audio_encoder_identity
    for name, identity in heard.items():
        if identity != generator.audio_encoder:
            raise InputError(
                f"{name} gives embeddings of {identity}, and the generator sounds those of {generator.audio_encoder}"
            )
    encoder = models.get("image_encoder")
    for each in trained:
        check_widths(each, None if encoder is None else encoder.width, generator.width)
        seen = None if encoder is None else shown_as(encoder.identity, crop_shape)
        check_encoders(each, seen, generator.audio_encoder)


def set_precision(stack: Stack, precision: str | None) -> None:
    """Has the models of a stack that can choose compute in a precision; None: as their options say."""
    for model in stack.every_model:
        if precision is not None and hasattr(model, "precision"):
            model.precision = precision


def _scene(item: Item) -> SceneFile | None:
    try:
        return read_scene(item.sources_file) if item.sources_file else None
    except InputError:  # told of the item later
        return None


@contextmanager
def _for_writing(place: Path, work: WorkFolder, items: Sequence[Item]) -> Iterator[None]:
    """Opens the folder for one call and the processes of it."""
    make_folder(place, "the sounds")
    lock = FolderLock(place)
    try:
        work.clear()
        remove_unfinished(place, items)
        yield
    finally:
        lock.release()


def _report(items: Sequence[Item], work: WorkFolder) -> Report:
    states = work.states()
    own = [states[item.key] for item in items]
    return Report(
        tuple(each["key"] for each in own if each["state"] == "made"),
        tuple(each["key"] for each in own if each["state"] == "kept"),
        tuple((each["key"], each["place"], each["reason"]) for each in own if each["state"] == "failed"),
        {each["key"]: each["reason"] for each in own if each["state"] == "made" and each["reason"]},
    )
