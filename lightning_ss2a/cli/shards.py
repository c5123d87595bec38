"""``ss2a shards VERB``: build, compose, pack, simulate, inspect and validate data sets."""

import glob
import logging
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from rich.console import Console

from lightning_ss2a.builders import build_demo, compose_dataset
from lightning_ss2a.builders.composition_draws import COMPOSITIONS
from lightning_ss2a.cli.build import both_encoders, build
from lightning_ss2a.data.format.compression import Compression
from lightning_ss2a.data.format.manifest import MANIFEST
from lightning_ss2a.data.simulation.dataset import simulate_dataset
from lightning_ss2a.data.simulation.truth import TRUTH
from lightning_ss2a.data.tools.inspect import TABLE_WIDTH, inspect_dataset
from lightning_ss2a.data.tools.pack import SampleMapping, pack_samples, repack_dataset
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import is_local, local_path, to_path
from lightning_ss2a.perception import AudioEncoder, ImageEncoder
from lightning_ss2a.perception.detectors.protocols import Detector
from lightning_ss2a.perception.encoders.protocols import TextEncoder, TextToAudioPrior, TextToImagePrior

DTypeName = Literal["float16", "float32"]
"""Storage types of an embedding."""

Verb = Callable[..., int | None]
"""What a verb of the command line calls; its arguments are the options, its result the exit status."""


def compose(
    source: str,
    output: str,
    image_encoder: ImageEncoder | None = None,
    audio_encoder: AudioEncoder | None = None,
    kind: Literal["scenes", "videos"] = "scenes",
    pairs_dataset: str | None = None,
    audio_views: int | None = None,
    detector: Detector | None = None,
    text_encoder: TextEncoder | None = None,
    prior: TextToImagePrior | None = None,
    sound_prior: TextToAudioPrior | None = None,
    **options: Any,  # the parser reads them, and their help, off compose_dataset
) -> None:
    """Compose scenes or videos from a list of pairs: sounds mixed as waveforms, pictures as one picture.

    Args:
        source: the list that the data set of pairs was built from: CSV file or folder, see ss2a shards build.
        output: folder of the data set.
        image_encoder: turns pictures into embeddings; see configs/perception/.
        audio_encoder: turns sounds into embeddings; its label head, if any, is stored as well.
        kind: scenes (sources, the whole picture, the sound) or videos (64 frames of 10 s, the sound).
        pairs_dataset: data set of kind pairs that was built from the list; gives split, class and group of each pair.
        audio_views: has no effect, since a mix is heard whole; taken so that configuration files of build serve here.
        detector: has no effect, since the sources are known.
        text_encoder: has no effect, as nothing is a text.
        prior: has no effect, either.
        sound_prior: has no effect, either.
        options: see ``compose_dataset``.
    """
    images, sounds = both_encoders(image_encoder, audio_encoder)
    if pairs_dataset is None:
        raise InputError(
            "pairs_dataset is missing: name the data set that was built from this list (ss2a shards build)"
        )
    report = compose_dataset(source, output, images, sounds, kind=kind, pairs_dataset=pairs_dataset, **options)
    print(f"{output}: {report}")
    print(f"What each row is made of: {to_path(output) / COMPOSITIONS}")


def demo(
    output: str = "shards/demo",
    scenes: str = "shards/demo_scenes",
    videos: str = "shards/demo_videos",
    cache: str = ".cache/demo",
    pairs: str = "shards/demo/pairs.csv",
    sounds: str = "shards/demo/sounds.csv",
) -> None:
    """Build the demo shards again from the media of packages of Debian and Python (needs apt-get, dpkg and a network).

    In each folder a data set is replaced; other files stay.

    Args:
        output: folder of the data set of pairs.
        scenes: folder of the scenes composed of these pairs.
        videos: folder of the videos composed of these pairs.
        cache: keeps packages, media and embeddings; about 800 MB.
        pairs: list of the pairs and their credits.
        sounds: list of the labelled sounds that become translated pairs, and their credits.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lists = map(to_path, (output, cache, pairs, sounds))
    for folder, reports in build_demo(*lists, scenes=to_path(scenes), videos=to_path(videos)).items():
        for report in reports:
            print(f"{folder}: {report}")


def pack(
    sources: str | list[str],
    output: str,
    fields: dict[str, str] | None = None,
    encoders: dict[str, str] | None = None,
    class_from: str | None = None,
    group_from: str | None = None,
    name_from: str | None = None,
    key_from: str | None = None,
    pair_origin: Literal["annotated", "curated", "translated"] = "annotated",
    dtype: DTypeName = "float16",
    split: str = "train",
    classes: list[str] | None = None,
    provenance: str = "",
    licence: str = "",
    layout: Literal["blocks", "samples"] = "blocks",
    compression: Compression = "none",
    shuffle_seed: int | None = None,
    block_rows: int = 1024,
    shard_rows: int = 65536,
    overwrite: bool = False,
) -> None:
    """Convert one-sample-per-entry tars of other tools, or copy data sets of ours into one of another layout or order.

    A source that is a data set (has a manifest) is copied with all its splits; the options from ``fields`` to
    ``licence`` then do not apply. Facts are written as the member that holds them and, for .json, the path in it: cls,
    txt, json:label, json:video.id.

    Args:
        sources: tars (a path, a pattern such as 'tars/*.tar', a URL, both also with braces as in 'tars/{000..127}.tar',
            or a list) or folders of data sets.
        output: folder of the data set.
        fields: member of each embedding field: '{visual: clip.npy, audio: clap.npy}'.
        encoders: encoder of each field: '{visual: clip-vit-l-14, audio: clap}'; data trained together must agree.
        class_from: fact that is the class: a name, or with cls a number. None: one class, unlabelled.
        group_from: fact that rows of one group share (same video, same recording). None: each row is its own group.
        name_from: fact that is the name of the object.
        key_from: fact that is the row's key. None: the sample's own key.
        pair_origin: annotated, curated or translated; of all rows.
        dtype: of the embeddings as stored.
        split: name of the split.
        classes: names of the classes. None: those that occur, sorted; the sources are then read twice.
        provenance: where the media come from.
        licence: licence of the media.
        layout: many rows in each tar entry, or one; data sets of ours only.
        compression: gzip compresses what gets at least 10 % smaller by it, for data that repeat themselves.
        shuffle_seed: shuffle the rows of each split, which must fit in memory; data sets of ours only.
        block_rows: rows in a block.
        shard_rows: rows in a shard.
        overwrite: replace a data set in the output folder; other files there stay.
    """
    found = _expand([sources] if isinstance(sources, str) else sources)
    written: dict[str, Any] = {
        "compression": compression,
        "block_rows": block_rows,
        "shard_rows": shard_rows,
        "overwrite": overwrite,
    }
    for source in found:
        if is_local(source) and not Path(source).exists():
            raise InputError(f"{source}: no such file or folder")
    if all((Path(source) / MANIFEST).exists() for source in found):
        foreign = SampleMapping(
            fields or {}, encoders or {}, class_from, group_from, name_from, key_from, pair_origin, dtype
        )
        if foreign != SampleMapping({}, {}) or classes or provenance or licence or split != "train":
            raise InputError(
                "options from fields to licence are for tars of other tools; these sources have a manifest"
            )
        manifest = repack_dataset(found, output, layout=layout, shuffle_seed=shuffle_seed, **written)
    else:
        if not fields or not encoders:
            raise InputError(
                "fields and encoders are missing: say what the tars hold, for example --fields '{visual: clip.npy, "
                "audio: clap.npy}' --encoders '{visual: clip-vit-l-14, audio: clap-htsat}'"
            )
        if layout != "blocks" or shuffle_seed is not None:
            raise InputError("layout and shuffle_seed are for data sets of ours: pack the tars first, then pack again")
        mapping = SampleMapping(fields, encoders, class_from, group_from, name_from, key_from, pair_origin, dtype)
        manifest = pack_samples(
            found, output, mapping, split=split, classes=classes, provenance=provenance, licence=licence, **written
        )
    rows = ", ".join(f"{name} {manifest.rows(name):,}" for name in manifest.splits)
    print(f"{output}: {manifest.rows():,} rows ({rows}), {len(manifest.classes)} classes")


def simulate(output: str, **options: Any) -> None:  # the parser reads the options, and their help, off simulate_dataset
    """Draw a data set of any size from a world whose truth is known. Simulated, never real data.

    Splits of one name hold the same pictures, keys and groups in all data sets of one kind, world and seed: splits that
    must be independent need other names.

    Args:
        output: folder of the data set. The truth goes to ``truth/`` in it, which nothing reads in training.
        options: see ``simulate_dataset``.
    """
    manifest = simulate_dataset(output, **options)
    rows = ", ".join(f"{name} {manifest.rows(name):,}" for name in manifest.splits)
    print(f"{output}: {manifest.rows():,} simulated {manifest.kind} ({rows}), {len(manifest.classes)} classes")
    print(f"The truth of every row: {to_path(output) / TRUTH}")


def frames(
    source: str,
    output: str,
    checkpoint: str,
    sampling: Literal["mean", "draw", "cycle_mix"] = "mean",
    seed: int = 0,
    videos_at_once: int = 16,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Generate an audio embedding for every frame of a data set of videos, to train temporal aggregation on.

    Args:
        source: data set of kind videos whose frames are visual embeddings.
        output: folder of the data set, of kind videos, whose frames are audio embeddings.
        checkpoint: checkpoint of a RemixerModule, which holds its manifold too.
        sampling: the mean of the Remixer's Gaussian, one draw, or Cycle Mix as the checkpoint sets it.
        seed: of draws.
        videos_at_once: videos in a batch, of 64 frames each.
        device: such as cpu or cuda; auto: a GPU if there is one.
        overwrite: replace a data set in the output folder; other files there stay.
        progress: show a progress bar, on a terminal.
    """
    from lightning_ss2a.generation.frames import generate_frames  # imports Lightning, which the other verbs do without

    manifest = generate_frames(
        source,
        output,
        checkpoint,
        sampling=sampling,
        seed=seed,
        videos_at_once=videos_at_once,
        device=device,
        overwrite=overwrite,
        progress=progress,
    )
    print(f"{output}: {manifest.rows():,} videos of generated audio embeddings")
    print(f"Train on them: lightning fit -c configs/temporal_aggregation.yaml --data.datasets {quote(output)}")


def inspect(dataset: str, width: int | None = None) -> None:
    """Print a data set as tables: splits, classes, origins, fields with norms and duplicates, label head.

    Args:
        dataset: folder or URL of the data set.
        width: characters in a line; default: the terminal's.
    """
    print(inspect_dataset(dataset, width or max(TABLE_WIDTH, Console().width)), end="")


def validate(dataset: str) -> int:
    """Check a data set: every file, block, row and field. Prints all problems; exit status 1 if there are any.

    Args:
        dataset: folder or URL of the data set.
    """
    problems = validate_dataset(dataset)
    for problem in problems:
        print(problem)
    print(f"{dataset}: {len(problems)} problems" if problems else f"{dataset}: good")
    return 1 if problems else 0


SHARD_VERBS: dict[str, Verb] = {
    "build": build,
    "compose": compose,
    "pack": pack,
    "simulate": simulate,
    "frames": frames,
    "inspect": inspect,
    "validate": validate,
    "demo": demo,
}


def _expand(sources: list[str]) -> list[str]:
    """Expands braces and patterns into the files they mean, in order; URLs and paths that exist stay as they are."""
    from braceexpand import braceexpand  # comes with webdataset, whose habit this is

    expanded: list[str] = []
    for source in map(local_path, sources):
        for name in [source] if Path(source).exists() else braceexpand(source):
            if not glob.has_magic(name) or Path(name).exists() or ":" in name:
                expanded.append(name)
                continue
            matches = sorted(glob.glob(name))
            if not matches:
                raise InputError(f"{name}: no file matches")
            expanded += matches
    return expanded
