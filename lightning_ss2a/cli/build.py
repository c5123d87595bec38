"""``ss2a shards build``: data sets from media."""

from collections.abc import Mapping
from inspect import signature
from shlex import quote
from typing import Any, Literal

from lightning_ss2a.builders import build_pairs
from lightning_ss2a.builders.engine.options import BuildTrainer, MediaKind
from lightning_ss2a.builders.listing import ItemReader, PairItems, list_items
from lightning_ss2a.builders.pairs import media_folder
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.perception import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.detectors.crops import MOST_SOURCES, CropShape
from lightning_ss2a.perception.detectors.protocols import Detector
from lightning_ss2a.perception.encoders.protocols import TextEncoder, TextToAudioPrior, TextToImagePrior
from lightning_ss2a.perception.media.video import PyAVReader, VideoReader

SHARED = (
    "folds", "validation_fraction", "seed", "dtype", "provenance", "licence", "compression", "overwrite", "progress",
)  # fmt: skip
"""Options that both ways of building have."""


def build(
    source: str,
    output: str,
    image_encoder: ImageEncoder | None = None,
    audio_encoder: AudioEncoder | None = None,
    detector: Detector | None = None,
    text_encoder: TextEncoder | None = None,
    prior: TextToImagePrior | None = None,
    sound_prior: TextToAudioPrior | None = None,
    kind: MediaKind = "pairs",
    reader: ItemReader | None = None,
    exclude: str | None = None,
    splits: list[str] | None = None,
    sources: Literal["all", "single", "multi"] = "all",
    most_sources: int = MOST_SOURCES,
    crop_shape: CropShape = "padded",
    video_reader: VideoReader | None = None,
    batch_size: int | None = None,
    trainer: BuildTrainer = BuildTrainer(),  # noqa: B008  # frozen
    media_root: str | None = None,
    skip_bad: bool = True,
    **options: Any,  # the parser reads them, and their help, off build_pairs
) -> None:
    """Build a data set of pairs, scenes or videos from media.

    Pairs of a CSV file or folder of ours get views of each picture and sound (image_views, audio_views). With a reader,
    and for scenes and videos, each medium is perceived once, on all devices (trainer), and a build that stops goes on
    with the same command.

    Args:
        source: CSV file with the columns image, sound and optionally name, class, group, pair_origin; or a folder in
            which a picture and a sound of the same name are a pair and each sub-folder is a class. With a reader: the
            list's file, or the data set's folder.
        output: folder of the data set.
        image_encoder: turns pictures into embeddings; see configs/perception/.
        audio_encoder: turns sounds into embeddings; its label head, if any, is stored as well.
        detector: finds the sources of scenes.
        text_encoder: reads texts that stand in for pictures; default: the prior's own.
        prior: turns these into embeddings of pictures, for translated pairs.
        sound_prior: has no effect; taken so that one file of a stack serves here and in generate.
        kind: pairs (picture or central frame, sound), scenes (sources, whole picture, sound) or videos (64 frames).
        reader: reads the list of a data set; see configs/datasets/. Default: a list of pairs of ours.
        exclude: text file of keys or groups to leave out, one a line, or vggss.json, for the videos that it annotates;
            with a reader.
        splits: parts of the data set to keep, by its authors' names; with a reader.
        sources: keep items of one annotated source, or of several; with a reader.
        most_sources: sources of a scene at most, the surest.
        crop_shape: how pictures, boxes and frames become squares: in the middle of white, or stretched as in the paper.
        video_reader: reads videos, which pairs with views have none of; default: PyAV.
        batch_size: items at once; default: 32 pairs, 16 scenes, 4 videos. With a reader, or for scenes and videos.
        trainer: where it runs, as Lightning's trainer. With a reader, or for scenes and videos.
        media_root: folder that relative paths start from; default: the list's, or the folder.
        skip_bad: leave out what cannot be used, and say why in rejected.csv; else it is an error.
        options: see ``build_pairs``.
    """
    images, sounds = both_encoders(image_encoder, audio_encoder)
    if reader is None and kind == "pairs":
        given = {
            "exclude": exclude,
            "splits": splits,
            "batch_size": batch_size,
            "sources": sources,
            "most_sources": most_sources,
            "trainer": trainer,
        }
        _refuse_changed(given)
        report: Any = build_pairs(
            source, output, images, sounds, media_root=media_root, crop_shape=crop_shape, skip_bad=skip_bad, **options
        )
    else:
        from lightning_ss2a.builders.engine.build import build_media  # imports Lightning, for seconds
        from lightning_ss2a.builders.engine.module import Stack

        items = list_items(
            source, reader or PairItems(), media_root=media_root, exclude=exclude, splits=splits, sources=sources
        )
        report = build_media(
            items,
            media_folder(to_path(source), media_root),
            output,
            Stack(images, sounds, detector, text_encoder, prior),
            video_reader or PyAVReader(),
            kind=kind,
            trainer=trainer,
            batch_size=batch_size,
            most_sources=most_sources,
            crop_shape=crop_shape,
            skip_bad=skip_bad,
            **_shared(options),
        )
    if report is not None:  # else another process tells
        print(f"{output}: {report}")
        print(f"Look at it: ss2a shards inspect {quote(output)}")


def both_encoders(images: ImageEncoder | None, sounds: AudioEncoder | None) -> tuple[ImageEncoder, AudioEncoder]:
    """Gives both encoders.

    Raises:
        InputError: one is missing.
    """
    if images is None or sounds is None:
        missing = "image_encoder" if images is None else "audio_encoder"
        raise InputError(f"{missing} is missing: name both encoders, for example with -c configs/perception/lite.yaml")
    return images, sounds


def _refuse_changed(options: Mapping[str, Any]) -> None:
    """Refuses options that pairs with views do not heed, where they are not as by default."""
    parameters = signature(build).parameters
    changed = [name for name, value in options.items() if value != parameters[name].default]
    if changed:
        raise InputError(f"{', '.join(changed)} has no effect on pairs with views; name a reader (configs/datasets/)")


def _shared(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the engine has, too; views and their cache have no effect there."""
    return {name: options[name] for name in SHARED if name in options}
