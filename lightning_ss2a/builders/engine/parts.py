"""Keeps what is perceived of media until the data set is whole: a file for each run of items, whole or not at all."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from lightning_ss2a.builders.engine.deaths import Deaths
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import FolderLock, WholeFile, write_whole

BUILD = ".build"
"""Folder in that of the data set, until it is whole."""
DESCRIPTION = "build.json"


@dataclass(frozen=True)
class Region:
    """Where in a picture a source is.

    Attributes:
        label: what the detector takes it for; empty: its boxes are annotated.
        score: of the detector, in [0, 1]; 1 if annotated.
        box: left, top, right and bottom, as parts of the picture's width and height.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class PerceivedItem:
    """What an item has become.

    Attributes:
        number: of the item in the list.
        content: sha256 of each of its files.
        fields: float32 [things, width] each: one thing, but for ``sources`` and ``frames``; ``timestamps`` [1, 64].
        regions: of its sources, if it has any.
    """

    number: int
    content: tuple[str, ...]
    fields: dict[str, np.ndarray]
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Part:
    """What consecutive items of the list have become.

    Attributes:
        number: of the part.
        items: those that can be used, in the list's order.
        rejected: why others cannot, by their number.
    """

    number: int
    items: tuple[PerceivedItem, ...]
    rejected: dict[int, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Makes the file: numpy's ``.npz``, in which the words are JSON."""
        words = {
            "items": [[item.number, item.content, [asdict(region) for region in item.regions]] for item in self.items],
            "rejected": list(self.rejected.items()),
        }
        arrays = {"words": np.frombuffer(json.dumps(words).encode(), np.uint8)}
        for name in self.items[0].fields if self.items else ():
            own = [item.fields[name] for item in self.items]
            arrays |= {f"{name}.values": np.concatenate(own), f"{name}.counts": np.array([len(each) for each in own])}
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, number: int, data: bytes) -> "Part":
        """Reads the file; numpy, zipfile and JSON raise what they like if it is damaged."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            words = json.loads(arrays["words"].tobytes())
            fields = {
                name.removesuffix(".values"): np.split(arrays[name], np.cumsum(arrays[f"{name[:-7]}.counts"])[:-1])
                for name in arrays.files
                if name.endswith(".values")
            }
        items = tuple(
            PerceivedItem(
                item,
                tuple(content),
                {name: values[row] for name, values in fields.items()},
                tuple(Region(region["label"], region["score"], tuple(region["box"])) for region in regions),
            )
            for row, (item, content, regions) in enumerate(words["items"])
        )
        return cls(number, items, dict(words["rejected"]))


class BuildFolder:
    """The parts of an unfinished build, in ``.build`` of the data set's folder, which all processes share.

    Args:
        output: folder of the data set.
        description: all that decides the rows, as words by name; a build goes on only where it is the same.
    """

    def __init__(self, output: Path, description: Mapping[str, str]) -> None:
        self.output = output
        self.folder = output / BUILD
        self.description = dict(description)
        self.deaths = Deaths(self.folder)

    @cached_property
    def digest(self) -> str:
        """Sha256 of the description, hexadecimal."""
        return hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()

    def check(self) -> None:
        """Checks that what is there, if anything, can be gone on with.

        Raises:
            InputError: it is the unfinished build of something else; names what is different.
        """
        found = self._found()
        if found is None or found == self.description:
            return
        name = next(name for name in [*self.description, *found] if found.get(name) != self.description.get(name))
        was, now = (_shown(words.get(name)) for words in (found, self.description))
        raise InputError(
            f"{self.output}: holds an unfinished build with another {name} ({was}, now {now}); go on with the same, or "
            "start again with overwrite"
        )

    @contextmanager
    def for_writing(self, overwrite: bool) -> Iterator[None]:
        """Opens the folder for one process, and for those that it lets write: goes on with what is there, or begins.

        Raises:
            InputError: see :meth:`check`; with ``overwrite`` that build is removed instead. Or one is going on there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.folder)
        try:
            if not overwrite:
                self.check()
            elif self._found() != self.description:
                for path in self.folder.iterdir():
                    path.unlink()
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink()
            self.deaths.forget_work()
            if self._found() is None:
                write_whole(self.folder / DESCRIPTION, json.dumps(self.description, indent=1))
            yield
        finally:
            lock.release()

    def finished(self) -> set[int]:
        """Lists the numbers of the parts that are there."""
        return {int(path.name[:7]) for path in self.folder.glob(self._name("*"))}

    def write(self, part: Part) -> None:
        """Writes a part; once this returns, it survives whatever happens.

        Raises:
            OSError: it cannot be written.
        """
        with WholeFile(self.folder / self._name(f"{part.number:07d}"), durable=True) as file:
            file.write(part.to_bytes())

    def read(self, numbers: Sequence[int] | range) -> Iterator[Part]:
        """Reads parts, in the order of the numbers.

        Raises:
            InputError: one is missing or damaged.
        """
        for number in numbers:
            path = self.folder / self._name(f"{number:07d}")
            try:
                part = Part.from_bytes(number, path.read_bytes())
            except Exception as error:  # whatever numpy, zipfile and JSON make of damage
                raise InputError(f"{path}: missing or damaged ({error}); remove it and build again") from error
            yield part

    def remove(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _name(self, number: str) -> str:
        # Of the build, too: a process that a kill left behind may still write parts of the one before.
        return f"{number}-{self.digest[:12]}.npz"

    def _found(self) -> dict[str, str] | None:
        path = self.folder / DESCRIPTION
        try:
            return dict(json.loads(path.read_bytes())) if path.exists() else None
        except ValueError as error:
            raise InputError(f"{path}: damaged ({error}); remove the folder {self.folder}") from error


def _shown(words: str | None) -> str:
    return "none" if words is None else words if len(words) <= 80 else f"{words[:77]}..."
