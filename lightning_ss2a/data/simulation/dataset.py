"""Draws data sets from the simulated world, in constant memory, with their truth beside them."""

import json
import os
import warnings
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from lightning_ss2a.data.format.columns import Column, Columns, Ragged, dense
from lightning_ss2a.data.format.compression import Compression
from lightning_ss2a.data.format.convert import group_of
from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.format.schema import KINDS, FieldSpec
from lightning_ss2a.data.format.storage import PLAIN_NAME
from lightning_ss2a.data.format.writer import ShardWriter
from lightning_ss2a.data.loading.batch_order import Purpose, generator
from lightning_ss2a.data.loading.loaders import ahead
from lightning_ss2a.data.simulation.rows import DRAW, Drawn, PairOriginMix
from lightning_ss2a.data.simulation.truth import (
    OF_SHARDS,
    TRUTH,
    WORLD,
    TruthFiles,
    check_truth_folder,
    remove_stale_truth,
    save_world,
)
from lightning_ss2a.data.simulation.world import World, WorldSpec
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path

SPLITS = {"train": 100_000, "validation": 5_000}
FRACTIONS = {"annotated": 0.2, "curated": 0.4, "translated": 0.4}
MISMATCH = {"annotated": 0.0, "curated": 0.3, "translated": 0.3}

DRAWN_TOGETHER = {"pairs": 2048, "scenes": 256, "videos": 32}
"""Rows that one random generator draws, by kind. Part of the model: another number gives other rows."""

_SPLIT_BITS = 31
"""Rows that a split can number in a group."""


def simulate_dataset(
    output: str,
    kind: Literal["pairs", "scenes", "videos"] = "pairs",
    splits: dict[str, int] | None = None,
    num_classes: int = 221,
    seed: int = 0,
    pair_origins: dict[str, float] | None = None,
    mismatch: dict[str, float] | None = None,
    clean_splits: list[str] | None = None,
    world: WorldSpec = WorldSpec(),  # noqa: B008 (frozen)
    dtype: Literal["float16", "float32"] = "float16",
    compression: Compression = "none",
    block_rows: int = 1024,
    shard_rows: int = 65536,
    threads: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Manifest:
    """Draws a data set from the simulated world; a build that stopped goes on where it was.

    The same arguments give the same rows, whatever the block and shard sizes and the number of threads. A split's rows
    depend on its name, not on its length or on other splits; data sets of one seed, one number of classes and one world
    share that world, of whatever kind they are. In two of them that are of one kind, splits of one name hold the same
    pictures (of scenes and videos: sources, as seen), keys and groups, whatever the origins and mismatch; splits that
    must be independent need other names.

    Args:
        output: folder of the data set. The truth goes to ``truth/`` in it, which nothing reads in training.
        kind: pairs, scenes or videos.
        splits: rows of each split. None: 100,000 for train, 5,000 for validation. Splits of one name hold the same
            pictures, keys and groups in all data sets of one kind, world and seed; independent ones need other names.
        num_classes: number of classes.
        seed: seed of the world and of its rows.
        pair_origins: parts of the rows by origin. None: annotated 0.2, curated 0.4, translated 0.4.
        mismatch: parts of an origin's rows whose audio is of another class. None: curated 0.3, translated 0.3.
        clean_splits: splits in which no row is mismatched, for example to validate on. None: none. Keys, origins and
            the visual embeddings and classes of all sources are the same as with mismatched rows; what is drawn after
            these is not, in any row: noise of audio and mixtures, and when the sources of a video are active.
        world: numbers of the world.
        dtype: of the embeddings as stored.
        compression: gzip compresses what gets at least 10 % smaller by it, for data that repeat themselves.
        block_rows: rows in a block.
        shard_rows: rows in a shard.
        threads: threads that draw rows. None: one a core, at most 8.
        overwrite: replace a data set in the folder, with its truth; other files there stay.
        progress: show a progress bar, on a terminal.

    Returns:
        The manifest.

    Raises:
        InputError: names the argument, or the folder that cannot be written.
    """
    splits = SPLITS if splits is None else splits
    mix = PairOriginMix(FRACTIONS if pair_origins is None else pair_origins, MISMATCH if mismatch is None else mismatch)
    drawn_world = World(world, num_classes, seed)
    clean = {} if clean_splits is None else dict.fromkeys(clean_splits, PairOriginMix(mix.fractions, {}))
    _check(kind, splits, clean, {"block_rows": block_rows, "shard_rows": shard_rows, "threads": threads})
    mixes = {split: clean.get(split, mix) for split in splits}
    _check_classes(kind, drawn_world, any(each.mismatches for each in mixes.values()))
    check_truth_folder(to_path(output))
    _warn_without_effect(mix.fractions, mismatch or {})
    rows_from = ["simulated 1", seed, asdict(world), dict(splits), mix.fractions, mix.mismatch, sorted(clean)]
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not (progress and console.is_interactive))
    with ShardWriter(
        output, kind, simulated_fields(kind, world, dtype), drawn_world.classes, provenance="simulated", licence="CC0",
        label_head=drawn_world.label_head(), compression=compression, block_rows=block_rows, shard_rows=shard_rows,
        overwrite=overwrite, rows_from=json.dumps(rows_from), beside=[f"{TRUTH}/{WORLD}", f"{TRUTH}/{OF_SHARDS}"],
    ) as writer, bar:  # fmt: skip
        save_world(writer.staging, world, num_classes, seed)
        for split, rows in splits.items():
            source = _Rows(drawn_world, mixes[split], kind, dtype, seed, split)
            _write_split(writer, source, rows, threads or min(8, os.cpu_count() or 1), bar)
    remove_stale_truth(writer.folder, writer.manifest)
    return writer.manifest


def simulated_fields(kind: str, world: WorldSpec, dtype: str) -> dict[str, FieldSpec]:
    """Describes the embedding fields of a simulated data set."""
    rules = KINDS[kind]
    fields = {
        name: FieldSpec(world.visual.width, "simulated-clip", dtype, ragged=name in rules.ragged, role=role)
        for name, role in (("visual", None), ("sources", None), ("global_visual", None), ("frames", "visual"))
        if name in rules.fields
    }
    return fields | {"audio": FieldSpec(world.audio.width, "simulated-clap", dtype)}


def _check(
    kind: str, splits: Mapping[str, int], clean_splits: Collection[str], counts: Mapping[str, int | None]
) -> None:
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, needs one of {', '.join(KINDS)}")
    if not splits:
        raise InputError("splits is empty: give rows by split, for example '{train: 1000, validation: 100}'")
    for split, rows in splits.items():
        if not PLAIN_NAME.fullmatch(split):
            raise InputError(f"splits: {split!r} needs a name of letters, digits, '-', '_' and '.'")
        if not 1 <= rows < 2**_SPLIT_BITS:
            raise InputError(f"splits: {split} is {rows}, needs 1 to {2**_SPLIT_BITS - 1} rows")
    if unknown := sorted(set(clean_splits) - splits.keys()):
        raise InputError(f"clean_splits: {unknown[0]} is no split; splits are {', '.join(splits)}")
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} is {count}, needs at least 1")


def _check_classes(kind: str, world: World, mismatches: bool) -> None:
    slots = {"pairs": 1, "scenes": world.spec.scene_sources, "videos": world.spec.video_sources}[kind]
    if world.num_classes < slots:
        raise InputError(
            f"num_classes is {world.num_classes}, needs at least {slots}: the {slots} sources of a row of {kind} are "
            "of different classes"
        )
    if mismatches and world.num_classes < 2 * slots:
        raise InputError(
            f"num_classes is {world.num_classes}, needs at least {2 * slots}: a mismatched row of {kind} with {slots} "
            "sources shows that many other classes"
        )


def _warn_without_effect(origins: Mapping[str, float], mismatch: Mapping[str, float]) -> None:
    for origin, rate in mismatch.items():
        if rate > 0 and not origins.get(origin):
            warnings.warn(
                f"mismatch: {origin}={rate} has no effect: no row is {origin}, see pair_origins", stacklevel=3
            )


@dataclass(frozen=True)
class _Rows:
    """The endless rows of a split, drawn ``DRAWN_TOGETHER`` at a time."""

    world: World
    origins: PairOriginMix
    kind: str
    dtype: str
    seed: int
    split: str

    def draw(self, number: int) -> Drawn:
        """Draws rows ``number * DRAWN_TOGETHER`` and on, as stored."""
        size = DRAWN_TOGETHER[self.kind]
        random = generator(self.seed, Purpose.SIMULATED_ROWS, group_of(self.split.encode()), number)
        drawn = DRAW[self.kind](self.world, self.origins, random, size)
        rows = range(number * size, (number + 1) * size)
        keys = np.array([f"{self.kind}-{self.split}-{row:09d}" for row in rows], np.bytes_)
        fields = KINDS[self.kind].fields
        columns: Columns = {name: _stored(x, self.dtype) if name in fields else x for name, x in drawn.columns.items()}
        group = (zlib.crc32(self.split.encode()) << _SPLIT_BITS) + np.arange(rows.start, rows.stop, dtype=np.int64)
        columns |= {"key": keys, "group": group}
        if "class_index" in columns:
            columns["name"] = np.array(self.world.classes, np.bytes_)[dense(columns["class_index"])]
        return Drawn(columns, {"key": keys} | drawn.truth)


def _stored(column: Column, dtype: str) -> Column:
    """Converts floats to the storage type with torch: several times as fast as numpy at float16, rounded alike."""
    if isinstance(column, Ragged):
        return Ragged(dense(_stored(column.values, dtype)), column.offsets)
    return torch.from_numpy(column).to(getattr(torch, dtype)).numpy()


def _write_split(writer: ShardWriter, source: _Rows, rows: int, threads: int, bar: Progress) -> None:
    written, size = writer.rows_written(source.split), DRAWN_TOGETHER[source.kind]
    if written >= rows:
        return
    truth = TruthFiles(writer.staging, source.split, writer.shard_rows, written // writer.shard_rows)
    numbers = range(written // size, -(-rows // size))
    task = bar.add_task(f"{source.split} rows", total=rows, completed=written)
    for number, drawn in zip(numbers, ahead(source.draw, numbers, threads), strict=True):
        part = slice(max(0, written - number * size), min(size, rows - number * size))
        # The truth first: a shard that is finished is never drawn again.
        truth.add({name: array[part] for name, array in drawn.truth.items()})
        writer.write(source.split, _cut(drawn.columns, part))
        bar.advance(task, part.stop - part.start)
    truth.save_rest()


def _cut(columns: Columns, part: slice) -> Columns:
    return {name: column[part] for name, column in columns.items()}
