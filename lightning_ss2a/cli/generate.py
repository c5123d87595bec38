"""``ss2a generate``: hear pictures, texts, sounds and videos."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from lightning_ss2a.builders.engine.options import BuildTrainer
from lightning_ss2a.cli.models import load_part, shipped_config
from lightning_ss2a.config_files import read_config
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import make_folder, to_path
from lightning_ss2a.generation.items import SCENE_SUFFIX, Item, item_of_options, list_items
from lightning_ss2a.generation.options import Checkpoints, FrameSources, Method, Sampling, SoundOptions
from lightning_ss2a.generation.protocols import SoundGenerator
from lightning_ss2a.models.cycle_mix import CycleMixOptions
from lightning_ss2a.perception import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.detectors.crops import MOST_SOURCES, CropShape
from lightning_ss2a.perception.detectors.protocols import Detector
from lightning_ss2a.perception.encoders.protocols import TextEncoder, TextToAudioPrior, TextToImagePrior
from lightning_ss2a.perception.media.video import PyAVReader, VideoReader

if TYPE_CHECKING:
    from lightning_ss2a.builders.engine.module import Stack
    from lightning_ss2a.generation.generate import Perception, Report
    from lightning_ss2a.generation.scene.perceiving import PerceivedItem

STACK, GENERATOR = "perception/lite.yaml", "generation/bank.yaml"
"""What perceives and what sounds, if nothing else is named; below ``configs/``."""


def generate(
    items: str | None = None,
    output: str = "generated",
    image: list[str] | None = None,
    text: list[str] | None = None,
    audio: list[str] | None = None,
    video: list[str] | None = None,
    weight: list[str] | None = None,
    sources_file: str | None = None,
    key: str | None = None,
    without: str | None = None,
    sources: bool = False,
    tracks: bool = False,
    method: Method = "ss2a",
    sampling: Sampling = "mean",
    seconds: float = 10.24,
    overlap: float = 1.0,
    frames: FrameSources = "whole",
    seed: int = 0,
    loudness: float | None = None,
    threshold: float = 0.1,
    candidates: int = 4,
    manifold: str | None = None,
    remixer: str | None = None,
    aggregator: str | None = None,
    translator: str | None = None,
    mapper: str | None = None,
    cycle_mix: CycleMixOptions | None = None,
    generator: SoundGenerator | None = None,
    tagger: AudioEncoder | None = None,
    image_encoder: ImageEncoder | None = None,
    audio_encoder: AudioEncoder | None = None,
    detector: Detector | None = None,
    text_encoder: TextEncoder | None = None,
    prior: TextToImagePrior | None = None,
    sound_prior: TextToAudioPrior | None = None,
    most_sources: int = MOST_SOURCES,
    crop_shape: CropShape = "padded",
    video_reader: VideoReader | None = None,
    batch_size: int = 8,
    trainer: BuildTrainer = BuildTrainer(),  # noqa: B008  # frozen
    progress: bool = True,
    image_views: int | None = None,
    audio_views: int | None = None,
) -> int:
    """Make the sound of pictures, texts, sounds and videos, alone or together, or of a list of them.

    Options make one item of all that they name; what is in a picture is detected. Files are KEY.wav and KEY.json, for a
    video also the video with its sound. What is there already, made of the same request, is kept. Exit status 1: of
    some items of a list nothing was made (failed.csv says why); 2: bad input.

    Args:
        items: CSV file with some of the columns key, image, text, audio, video, sources_file, weight, an item a row
            (several entries of a cell with semicolons between them); or a folder of media, an item each.
        output: folder of the sounds; files of others stay.
        image: picture, whose sources are detected; may be repeated.
        text: a source in words; may be repeated.
        audio: a source that is a sound; may be repeated.
        video: video that gets a sound.
        weight: how loud a source is, NAME=NUMBER: its label (--sources lists them), text or file, and a number of at
            least 0; 1 for those not named, and only their proportions count. May be repeated.
        sources_file: a scene as --sources saves it, changed by hand.
        key: names the files of the one item; default: its first medium.
        without: labels of what must not be heard, with commas between them, such as speech,music: sources that are
            kinds of it are dropped, and sounds in which a tagger hears it are rejected.
        sources: Print and save what is perceived (KEY.scene.yaml, and pictures with boxes), and make no sound.
        tracks: Sound each source alone, too (KEY.track01.LABEL.wav).
        method: ss2a (manifold and Remixer), or of the paper's baselines mean (of the sources), cascade (each source
            sounded alone, then mixed), v2a_mapper (the whole picture), oracle (the embedding of the given real sound).
        sampling: of the Remixer's Gaussian its mean, one draw, or Cycle Mix.
        seconds: of each sound, and of the windows in which a video is sounded.
        overlap: seconds by which these windows overlap, at least, up to half of one; they are cross-faded there.
        frames: sources of a video's frames: each as a whole, or those detected in it, as in the paper, and slower.
        seed: of everything that is drawn.
        loudness: in LUFS, such as -23; default: as the generator has it.
        threshold: probability from which the tagger hears something, for without.
        candidates: sounds that are tried at most, for without.
        manifold: checkpoint of a ManifoldModule, of methods mean and cascade; as all checkpoints, by default the best
            of the newest run below runs/.
        remixer: checkpoint of a RemixerModule, of method ss2a; it holds its manifold.
        aggregator: checkpoint of a TemporalAggregationModule, for videos; the baselines take the mean over frames,
            unless it is named.
        translator: checkpoint of an AudioToVisualModule, which gives sounds a look; default: they have none, as in the
            paper.
        mapper: checkpoint of a V2AMapperModule, of method v2a_mapper.
        cycle_mix: options of Cycle Mix; default: those of the checkpoint.
        generator: what sounds embeddings; see configs/generation/. Default: the bank of real sounds.
        tagger: audio encoder with a label head, for without; default: the audio encoder.
        image_encoder: turns pictures into embeddings; see configs/perception/. If no model is named: those of lite.
        audio_encoder: turns sounds into embeddings.
        detector: finds the sources in pictures.
        text_encoder: reads texts; default: the prior's own.
        prior: turns these into embeddings of pictures.
        sound_prior: turns texts into embeddings of sounds, as which they are sources then; null: prior reads them.
        most_sources: detected in a picture at most, the surest.
        crop_shape: how boxes and frames become squares: in the middle of white, or stretched as in the paper.
        video_reader: reads videos; default: PyAV.
        batch_size: items at once.
        trainer: where it runs, as Lightning's trainer.
        progress: show items done, items per second and time left, of a list.
        image_views: has no effect; taken so that configuration files of shards build serve here.
        audio_views: has no effect, either.
    """
    named = {"image": image, "text": text, "audio": audio, "video": video, "sources_file": sources_file}
    asked = _items(items, named, weight, key, output)
    options = SoundOptions(method, sampling, seconds, overlap, frames, seed, tracks, loudness, threshold, candidates)
    parts = {
        "image_encoder": image_encoder, "audio_encoder": audio_encoder, "detector": detector,
        "text_encoder": text_encoder, "prior": prior, "sound_prior": sound_prior,
    }  # fmt: skip
    words = tuple(word.strip() for word in (without or "").split(",") if word.strip())
    if without is not None and not words:
        raise InputError("without names nothing; say what must not be heard, such as --without speech,music")
    reader = video_reader or PyAVReader()

    from lightning_ss2a.generation.generate import Perception

    perception = Perception(_stack(parts), reader, crop_shape, most_sources, words)
    if sources:
        return _show_sources(asked, perception, to_path(output), trainer)
    from lightning_ss2a.generation.generate import generate as make

    report = make(
        asked,
        output,
        perception,
        generator or _default_generator(),
        options=options,
        checkpoints=Checkpoints(manifold, remixer, aggregator, translator, mapper),
        cycle_mix=cycle_mix,
        tagger=tagger,
        trainer=trainer,
        batch_size=batch_size,
        progress=progress and items is not None,
    )
    return 0 if report is None else _tell(report, output, is_list=items is not None)


def _items(
    items: str | None, named: dict[str, Any], weight: Sequence[str] | None, key: str | None, output: str
) -> list[Item]:
    """Lists what is asked for, by a list or by options."""
    if items is None:
        return [item_of_options(**named, weight=weight, key=key)]
    for name, value in {**named, "weight": weight, "key": key}.items():
        if value is not None:
            raise InputError(f"{name} has no effect beside items; make it a column of the list")
    return list_items(items, output)


def _stack(parts: dict[str, Any]) -> "Stack":
    """Makes the stack of what is named; the one of this project, if nothing is."""
    from lightning_ss2a.builders.engine.module import Stack  # imports Lightning, for seconds

    if all(part is None for part in parts.values()):
        file = shipped_config(STACK)
        named = read_config(file)
        parts = {name: load_part(name, named[name], file) for name in parts if name in named}
    for name in ("image_encoder", "audio_encoder"):
        if parts.get(name) is None:
            raise InputError(f"{name} is missing: name both encoders, for example with -c configs/{STACK}")
    return Stack(**parts)


def _default_generator() -> Any:
    file = shipped_config(GENERATOR)
    return load_part("generator", read_config(file)["generator"], file)


def _tell(report: "Report", output: str, is_list: bool) -> int:
    """Prints what became of the items; gives the exit status."""
    for key, note in report.notes.items():
        print(f"{key}: {note}", file=sys.stderr)
    if report.failed and not is_list:
        raise InputError(report.failed[0][2])
    for key, place, reason in report.failed:
        print(f"{key} ({place}): {reason}", file=sys.stderr)
    folder = to_path(output)
    if not is_list:
        (made,) = (*report.made, *report.kept)
        print(f"{folder / made}.wav{'' if report.made else ' (was made before)'}")
        return 0
    kept = f", {len(report.kept)} were made before" if report.kept else ""
    failed = f", {len(report.failed)} failed: {folder / 'failed.csv'} says why" if report.failed else ""
    print(f"{folder}: {len(report.made)} made{kept}{failed}")
    return 1 if report.failed else 0


def _show_sources(items: Sequence[Item], perception: "Perception", folder: Path, trainer: BuildTrainer) -> int:
    """Prints and saves what is perceived of each item; gives the exit status."""
    from lightning_ss2a.generation.generate import perceive_items
    from lightning_ss2a.generation.outputs import refuse_media_as_scenes
    from lightning_ss2a.generation.scene.scene_file import write_scene
    from lightning_ss2a.generation.scene.showing import draw_sources

    refuse_media_as_scenes(items, folder)
    failed = 0
    make_folder(folder, "what is perceived")
    for item, media, perceived in perceive_items(items, perception, trainer):
        if isinstance(perceived, InputError):
            if len(items) == 1:
                raise perceived
            failed += 1
            print(f"{item.key} ({item.place}): {perceived}", file=sys.stderr)
            continue
        _print_sources(item.key, perceived)
        kept = [source for source in perceived.sources if source.modality != "video"]
        saved = [folder / f"{item.key}{SCENE_SUFFIX}"]
        write_scene(saved[0], kept, perceived.pictures)
        saved += draw_sources(folder, item.key, media.pictures, perceived)
        print("saved " + ", ".join(map(str, saved)))
    return 1 if failed else 0


def _print_sources(key: str, perceived: "PerceivedItem") -> None:
    table = Table(title=f"{key}: {len(perceived.sources)} sources", title_justify="left")
    for name in ("source", "from", "score", "weight", "box", "file"):
        table.add_column(name, overflow="fold")
    rows = [(source, f"{source.weight:g}") for source in perceived.sources]
    rows += [(source, f"dropped: {why}") for source, why in perceived.dropped]
    for source, said in rows:
        score = "" if source.score is None else f"{source.score:.2f}"
        box = "" if source.box is None else " ".join(f"{side:.2f}" for side in source.box)
        table.add_row(source.label, source.modality, score, said, box, source.file)
    Console(width=max(100, Console().width), markup=False, emoji=False, highlight=False).print(table)
