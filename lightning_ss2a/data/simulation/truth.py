"""Writes and reads the truth of a simulated data set: the world of its rows, and what each row was drawn as.

It lies in ``truth/`` beside the shards, ``SPLIT-000000.npz`` for the shard ``SPLIT-000000.tar``, row for row; nothing
reads it in training.
"""

import io
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lightning_ss2a.data.format.columns import dense
from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.format.reader import ShardReader
from lightning_ss2a.data.simulation.world import ModalitySpec, World, WorldSpec
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import WholeFile, local_path, write_whole

TRUTH = "truth"
"""Folder of the truth in that of the data set."""

WORLD = "world.json"
"""File in it that tells which world the rows come from."""

OF_SHARDS = "*-??????.npz"
"""Files in it with the truth of one shard each."""


def read_truth(dataset: str | os.PathLike[str], split: str) -> dict[str, np.ndarray]:
    """Reads the truth of a split, in the order of its rows.

    Args:
        dataset: folder of a simulated data set.
        split: name of the split.

    Returns:
        Arrays [rows, ...]; see :mod:`lightning_ss2a.data.simulation.rows` for what they hold, and ``key``.

    Raises:
        InputError: there is no truth of that split, or it is of other rows: a data set that was replaced left it.
    """
    reader = ShardReader(dataset)
    parts = []
    for number, shard in enumerate(reader.manifest.shards(split)):
        file = Path(local_path(dataset), TRUTH, f"{Path(shard.file).stem}.npz")
        if not file.is_file():
            raise _no_truth(file)
        with np.load(file, allow_pickle=False) as arrays:
            part = {name: arrays[name] for name in arrays.files}
        if not np.array_equal(part["key"], dense(reader.read(split, number, fields=["key"])["key"])):
            raise InputError(f"{file}: tells of other rows than {shard.file}; remove the folder, or simulate again")
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read_world(dataset: str | os.PathLike[str]) -> World:
    """Draws the world of a simulated data set again: its trees, cones and frequencies.

    Args:
        dataset: folder of a simulated data set.

    Raises:
        InputError: it is not simulated.
    """
    file = Path(local_path(dataset), TRUTH, WORLD)
    if not file.is_file():
        raise _no_truth(file)
    known = json.loads(file.read_bytes())
    spec = known["spec"] | {name: ModalitySpec(**known["spec"][name]) for name in ("visual", "audio")}
    return World(WorldSpec(**spec), known["num_classes"], known["seed"])


def save_world(dataset: Path, spec: WorldSpec, num_classes: int, seed: int) -> None:
    """Writes what :func:`read_world` reads; the folder of the truth is made if need be.

    Args:
        dataset: folder of the data set.
        spec: the world's numbers.
        num_classes: number of classes.
        seed: the world's seed.
    """
    known = {"seed": seed, "num_classes": num_classes, "spec": asdict(spec)}
    (dataset / TRUTH).mkdir(exist_ok=True)
    write_whole(dataset / TRUTH / WORLD, json.dumps(known, indent=1) + "\n")


def check_truth_folder(dataset: Path) -> None:
    """Checks that the truth can be written into the folder of a data set.

    Raises:
        InputError: a file is in the way.
    """
    folder = dataset / TRUTH
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, and the truth needs a folder there; remove it, or name another output")


def remove_stale_truth(dataset: Path, manifest: Manifest) -> None:
    """Removes the truth of shards that the data set no longer has."""
    shards = {Path(shard.file).stem for split in manifest.splits for shard in manifest.shards(split)}
    for file in (dataset / TRUTH).glob(OF_SHARDS):
        if file.stem not in shards:
            file.unlink()


@dataclass
class TruthFiles:
    """Writes the truth of one shard after the other; memory holds that of one.

    Attributes:
        dataset: folder of the data set.
        split: name of the split.
        shard_rows: rows in a shard.
        number: number of the shard that comes next.
    """

    dataset: Path
    split: str
    shard_rows: int
    number: int
    _parts: list[dict[str, np.ndarray]] = field(default_factory=list, init=False)
    _waiting: int = field(default=0, init=False)

    def add(self, truth: dict[str, np.ndarray]) -> None:
        """Adds rows, arrays [rows, ...] with their ``key``; writes the shards that are full."""
        while self._waiting + len(truth["key"]) >= self.shard_rows:
            room = self.shard_rows - self._waiting
            self._parts.append({name: array[:room] for name, array in truth.items()})
            self.save_rest()
            truth = {name: array[room:] for name, array in truth.items()}
        if len(truth["key"]):
            self._parts.append(truth)
            self._waiting += len(truth["key"])

    def save_rest(self) -> None:
        """Writes what waits for a full shard, if anything."""
        if not self._parts:
            return
        arrays = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        content = io.BytesIO()  # numpy leaves an archive open that a full disk stops, and Python then complains of it
        np.savez(content, **arrays)
        with WholeFile(self.dataset / TRUTH / f"{self.split}-{self.number:06d}.npz", durable=True) as stream:
            stream.write(content.getbuffer())
        self._parts, self._waiting, self.number = [], 0, self.number + 1


def _no_truth(file: Path) -> InputError:
    return InputError(f"{file}: missing; only data sets that ss2a shards simulate made have a truth")
