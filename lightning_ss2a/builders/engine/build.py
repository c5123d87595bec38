"""``ss2a shards build`` at scale: from a list of media to a data set of pairs, scenes or videos."""

import hashlib
import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from lightning_ss2a import __version__
from lightning_ss2a.builders.engine.assemble import (
    SOURCES,
    USED,
    Assembly,
    MediaReport,
    ShardChoices,
)
from lightning_ss2a.builders.engine.media_worker import MediaNeeds, Preparations
from lightning_ss2a.builders.engine.module import PerceptionModule, Stack
from lightning_ss2a.builders.engine.options import BuildTrainer, MediaKind
from lightning_ss2a.builders.engine.parts import BuildFolder
from lightning_ss2a.builders.engine.running import PartsData, make_trainer, perceive
from lightning_ss2a.builders.listing import Listing
from lightning_ss2a.builders.rejected import REJECTED
from lightning_ss2a.data import Manifest
from lightning_ss2a.data.format.compression import Compression
from lightning_ss2a.data.format.manifest import MANIFEST
from lightning_ss2a.data.format.storage import PLAIN_NAME
from lightning_ss2a.data.format.writer import check_output
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path, write_whole
from lightning_ss2a.options import OptionCheck
from lightning_ss2a.perception.detectors.crops import MOST_SOURCES, CropShape
from lightning_ss2a.perception.detectors.protocols import PreparingDetector
from lightning_ss2a.perception.encoders.protocols import PreparingAudioEncoder, PreparingImageEncoder, TextEncoder
from lightning_ss2a.perception.media.video import VideoReader
from lightning_ss2a.perception.packages import media_package
from lightning_ss2a.perception.weights import Described, check_weights

BATCH_SIZES: dict[str, int] = {"pairs": 32, "scenes": 16, "videos": 4}
"""Items at once, if no number is given; by kind."""


def build_media(
    listing: Listing,
    root: Path,
    output: str,
    stack: Stack,
    video_reader: VideoReader,
    *,
    kind: MediaKind = "pairs",
    trainer: BuildTrainer = BuildTrainer(),  # noqa: B008  # frozen
    batch_size: int | None = None,
    most_sources: int = MOST_SOURCES,
    crop_shape: CropShape = "padded",
    folds: int = 0,
    validation_fraction: float = 0.1,
    seed: int = 0,
    dtype: Literal["float16", "float32"] = "float16",
    provenance: str = "",
    licence: str = "",
    skip_bad: bool = True,
    compression: Compression = "none",
    overwrite: bool = False,
    progress: bool = True,
) -> MediaReport | None:
    """Builds a data set from listed media, on all devices.

    Workers decode, each file once; the models see ``batch_size`` consecutive items of the list at once, and what they
    make of them is kept in ``.build`` in the output folder. A build that stops goes on with the same call, and its
    shards are row for row those of one that was never stopped, on any number of devices and machines of one type: an
    item's embedding depends on the items beside it in the list alone.

    Args:
        listing: the items, and those whose files are missing.
        root: folder that relative paths start from.
        output: folder of the data set, which all machines share.
        stack: the models.
        video_reader: reads videos.
        kind: ``pairs`` (the picture or the central frame, the sound), ``scenes`` (sources, the whole picture, the
            sound) or ``videos`` (64 even frames with their times, the sound).
        trainer: where it runs.
        batch_size: items at once; default: 32 pairs, 16 scenes, 4 videos.
        most_sources: sources of a scene at most, the surest.
        crop_shape: how boxes and frames become squares.
        folds: number of folds; 0: splits ``train`` and ``validation``, or those that the list names.
        validation_fraction: part of the groups in ``validation``, where neither folds nor the list say.
        seed: of the splits.
        dtype: as stored.
        provenance: where the media come from, for the manifest.
        licence: of the media, for the manifest.
        skip_bad: leave out items that cannot be used; else nothing is written if there are any.
        compression: see :class:`~lightning_ss2a.data.ShardWriter`.
        overwrite: replace a data set in the output folder, or an unfinished build with other options.
        progress: show items done, items per second and time left.

    Returns:
        what was written; None in processes other than the first.

    Raises:
        InputError: bad input, or a file of the models is missing: all of them are named before any medium is read.
    """
    check = OptionCheck()
    check.at_least(1, batch_size=batch_size, most_sources=most_sources)
    check.at_least(0, folds=folds, seed=seed)
    if folds == 1 or not 0 < validation_fraction < 1:
        raise InputError("folds needs 0 or at least 2, validation_fraction between 0 and 1")
    check_listing(listing, folds)
    stack = needed_models(stack, kind, listing, trainer.precision)
    place, runner = to_path(output), make_trainer(trainer)
    choices = ShardChoices(folds, validation_fraction, seed, dtype, provenance, licence, compression, crop_shape)
    part_items = batch_size or BATCH_SIZES[kind]
    description = {
        "program": f"lightning_ss2a {__version__}",
        "kind": kind,
        "list": fingerprint(listing),
        **identities(stack),
        "decoder": f"{video_reader.decoder}, {_decoders()}",
        "device": runner.strategy.root_device.type,
        "computing": computing(stack),
        "threads": str(trainer.threads),
        "batch_size": str(part_items),
        "most_sources": str(most_sources),
        **{name: str(value) for name, value in asdict(choices).items()},
    }
    folder = BuildFolder(place, description)
    if not overwrite and (report := finished_before(folder)):
        return report if runner.is_global_zero else None
    check_output(output, overwrite, [REJECTED, USED, SOURCES])
    needs = media_needs(kind, root, stack, video_reader, crop_shape)
    module = PerceptionModule(stack, needs, most_sources, trainer.threads)
    data = PartsData(listing.items, part_items, needs, folder, trainer.num_workers)
    with folder.for_writing(overwrite) if runner.is_global_zero else nullcontext():
        if not perceive(trainer, runner, module, data, progress):
            return None
        assembly = Assembly(folder, data.parts, listing, kind, choices)
        _check_problems(assembly, folder, skip_bad)
        report = assembly.write(place, stack)
        folder.remove()
    return report


def identities(stack: Stack) -> dict[str, str]:
    """Gives the identities of the models, whose files are downloaded for that if need be.

    Raises:
        InputError: files or packages are missing; names all of them.
    """
    found, problems = {}, []
    for name, model in stack.models.items():
        try:
            found[name] = str(model.identity)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("; ".join(dict.fromkeys(problems)))
    return found


def computing(stack: Stack) -> str:
    """Tells what of the models' options is in no identity, but in the last bits of an embedding."""
    chosen = {
        f"{name} {option}": getattr(model, option)
        for name, model in stack.models.items()
        for option in ("batch_size", "precision", "threads")
        if hasattr(model, option)
    }
    return ", ".join(f"{name} {value}" for name, value in chosen.items()) or "by itself"


def media_needs(
    kind: MediaKind, root: Path, stack: Stack, video_reader: VideoReader, crop_shape: CropShape
) -> MediaNeeds:
    """Tells what workers prepare for these models."""
    image, sound, detector = stack.image_encoder, stack.audio_encoder, stack.detector
    preparations = Preparations(
        image.prepare if isinstance(image, PreparingImageEncoder) else None,
        sound.prepare if isinstance(sound, PreparingAudioEncoder) else None,
        detector.prepare if isinstance(detector, PreparingDetector) else None,
    )
    return MediaNeeds(kind, root, sound.sample_rate, video_reader, preparations, crop_shape)


def check_listing(listing: Listing, folds: int) -> None:
    """Checks that there is something to do, and that the list's splits can be had.

    Raises:
        InputError: says what is wrong.
    """
    if not listing.items:
        first = f", the first: {listing.problems[0][1]}" if listing.missing else ""
        raise InputError(f"no item of the list can be used: the files of {len(listing.missing)} are missing{first}")
    if all(item.heard is None for item in listing.items):
        raise InputError(
            f"none of the {len(listing.items)} items has a sound, the first: {listing.items[0].place}; every row of a "
            "data set holds one, so that pictures to be given a sound make none"
        )
    for item in listing.items:
        if item.split is not None and not PLAIN_NAME.fullmatch(item.split):
            raise InputError(f"{item.place}: split {item.split!r} needs a name of letters, digits, '-', '_' and '.'")
        if item.split is not None and folds:
            raise InputError(f"{item.place}: is in split {item.split}; where the list names splits, folds must be 0")


def needed_models(stack: Stack, kind: str, listing: Listing, precision: str | None) -> Stack:
    """Picks the models that this list needs, and checks that they and all their files are there.

    Raises:
        InputError: a model is not named, or does not go with another; or files are missing: names all of them.
    """
    text = next((item for item in listing.items if item.seen == "text"), None) if kind == "pairs" else None
    unmarked = next((item for item in listing.items if not item.boxes), None) if kind == "scenes" else None
    if unmarked is not None and stack.detector is None:
        raise InputError(f"detector is missing: {unmarked.place} has no boxes; see configs/perception/")
    if text is not None and (stack.prior is None or stack.reader is None):
        missing = "prior" if stack.prior is None else "text_encoder"
        raise InputError(f"{missing} is missing: {text.place} has a text, no picture; see configs/perception/")
    detector = stack.detector if unmarked is not None else None
    text_encoder, prior = (stack.reader, stack.prior) if text is not None else (None, None)
    stack = Stack(stack.image_encoder, stack.audio_encoder, detector, text_encoder, prior)
    check_weights(model.describe() for model in stack.every_model if isinstance(model, Described))
    if prior is not None and prior.width != stack.image_encoder.width:
        raise InputError(
            f"prior gives embeddings of width {prior.width}, image_encoder of {stack.image_encoder.width}: they are "
            "not of one space"
        )
    own: TextEncoder | None = getattr(prior, "text_encoder", None)
    if text_encoder is not None and own is not None and own.identity != text_encoder.identity:
        raise InputError(
            f"text_encoder is {text_encoder.identity}, and the prior reads texts by {own.identity}: name the same for "
            "both, or none beside the prior's own"
        )
    for model in stack.every_model:
        if precision is not None and hasattr(model, "precision"):
            model.precision = precision
    return stack


def fingerprint(listing: Listing) -> str:
    """Identifies the items of a list in their order, wherever the list's file is."""
    items = [{**asdict(item), "place": ""} for item in listing.items]
    return f"{len(items)} items, sha256 {hashlib.sha256(json.dumps(items).encode()).hexdigest()}"


def finished_before(folder: BuildFolder) -> MediaReport | None:
    """Tidies up after a build that was killed when its data set was whole already; None: there is none."""
    if not folder.folder.exists() or not (folder.output / MANIFEST).exists():
        return None
    manifest = Manifest.load(folder.output)
    if (manifest.made_by or {}).get("build") != folder.digest:
        return None
    folder.remove()
    return MediaReport.of(manifest)


def _check_problems(assembly: Assembly, folder: BuildFolder, skip_bad: bool) -> None:
    """Raises InputError if nothing can be used, or something cannot that must."""
    problems = assembly.problems
    if assembly.used and (skip_bad or not problems):
        return
    table = write_whole(folder.folder / REJECTED, assembly.rejected_csv())
    item, reason = problems[0]
    advice = ", or leave them out with skip_bad" if assembly.used else ""
    raise InputError(
        f"{len(problems)} of {assembly.listed} items cannot be used ({table} names each), the first: {item.place}: "
        f"{reason}; mend them and start again with overwrite{advice}"
    )


def _decoders() -> str:
    soundfile, pillow, scipy = (media_package(name) for name in ("soundfile", "PIL", "scipy"))
    return f"libsndfile {soundfile.__libsndfile_version__}, Pillow {pillow.__version__}, SciPy {scipy.__version__}"
