"""Reads and writes ``manifest.json``: what a data set holds. It is written last, so without it none is finished."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_ss2a import __version__
from lightning_ss2a.data.format.compression import MOST_EXPANSION, unpack
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.format.schema import KINDS, ColumnSpec, FieldSpec, column_specs, field_problems
from lightning_ss2a.data.format.storage import PLAIN_NAME, RangeReader, join_url
from lightning_ss2a.data.format.strict_json import load_json, parse
from lightning_ss2a.errors import ShardError
from lightning_ss2a.files import is_local, local_path

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
LAYOUTS = ("blocks", "samples")


@dataclass(frozen=True)
class Block:
    """Rows that are read at once: a byte range of a shard.

    Attributes:
        offset: first byte.
        bytes: number of bytes.
        rows: number of rows.
        crc32: checksum of the bytes.
        unpacked_bytes: number of bytes of the ``.npy`` files in it, those in compressed members unpacked.
    """

    offset: int
    bytes: int
    rows: int
    crc32: int
    unpacked_bytes: int


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Attributes:
        file: name in the data set's folder.
        rows: number of rows.
        bytes: size.
        sha256: checksum, hexadecimal.
        blocks: its blocks in order; none in layout ``samples``.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    blocks: tuple[Block, ...] = ()

    @property
    def unpacked_bytes(self) -> int:
        """Bytes that its rows take once they are unpacked."""
        return sum(block.unpacked_bytes for block in self.blocks) if self.blocks else self.bytes


@dataclass(frozen=True)
class FileReference:
    """Another file of the data set.

    Attributes:
        file: name in the data set's folder; one that ends in ``.gz`` is compressed.
        sha256: checksum of the file, hexadecimal.
        unpacked_bytes: number of bytes that it holds.
    """

    file: str
    sha256: str
    unpacked_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a data set holds.

    Attributes:
        kind: ``pairs``, ``scenes`` or ``videos``.
        fields: the embedding fields.
        classes: names of the classes, in the order of ``class_index``.
        splits: shards of each split.
        layout: ``blocks`` (many rows in each tar entry) or ``samples`` (one).
        folds: names of the splits that are folds of a cross-validation.
        provenance: where the media come from.
        licence: licence of the media, and so of the embeddings.
        label_head: file of the label head.
        created_by: program that wrote it.
        made_by: how the rows were made of media: parts, decoder, options, counts, as words by name; None: not said, as
            in data sets of before. Nothing is read by it.
    """

    kind: str
    fields: dict[str, FieldSpec]
    classes: tuple[str, ...]
    splits: dict[str, tuple[Shard, ...]]
    layout: str = "blocks"
    folds: tuple[str, ...] | None = None
    provenance: str = ""
    licence: str = ""
    label_head: FileReference | None = None
    created_by: str = f"lightning_ss2a {__version__}"
    made_by: dict[str, str] | None = dataclasses.field(default=None, repr=False)  # the digest is that of what is read

    @property
    def columns(self) -> dict[str, ColumnSpec]:
        """How each column is stored: embedding fields first."""
        return column_specs(self.kind, self.fields, len(self.classes))

    @property
    def encoders(self) -> dict[str, str]:
        """Encoder of each field."""
        return {name: spec.encoder for name, spec in self.fields.items()}

    @cached_property
    def digest(self) -> str:
        """Sha256 of all that it says, hexadecimal: another one where a shard, a field or a class is another."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def rows(self, split: str | None = None) -> int:
        """Counts the rows of a split; of all, if None.

        Raises:
            ShardError: no such split.
        """
        splits = self.splits if split is None else [split]
        return sum(shard.rows for name in splits for shard in self.shards(name))

    def shards(self, split: str) -> tuple[Shard, ...]:
        """Gives the shards of a split.

        Raises:
            ShardError: no such split.
        """
        if split not in self.splits:
            raise ShardError(f"no split {split!r}; this data set has {', '.join(self.splits)}")
        return self.splits[split]

    def load_label_head(self, folder: str | os.PathLike) -> LabelHead:
        """Loads the data set's label head, checked against its sha256 and the width of the audio.

        Raises:
            ShardError: there is none, or it is damaged.
        """
        if self.label_head is None:
            raise ShardError(f"{os.fspath(folder)}: the data set has no label head")
        where = join_url(folder, self.label_head.file)
        with RangeReader(where, folder if is_local(folder) else None) as file:
            data = file.read_all()
        if hashlib.sha256(data).hexdigest() != self.label_head.sha256:
            raise ShardError(f"{where}: sha256 is not the manifest's; restore the file or build the data set again")
        content = unpack(self.label_head.file, memoryview(data), self.label_head.unpacked_bytes, where)
        head = LabelHead.from_bytes(bytes(content), where)
        if head.width != self.fields["audio"].width:
            raise ShardError(
                f"{where}: scores embeddings of width {head.width}, but field audio has width "
                f"{self.fields['audio'].width}; use a label head of the same encoder"
            )
        return head

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Manifest":
        """Reads the manifest of a data set: a local folder, or a URL that fsspec or WebDataset opens.

        Raises:
            ShardError: missing, damaged, of another version, or inconsistent.
        """
        local = is_local(folder)
        where = join_url(folder, MANIFEST)
        if local and not Path(local_path(where)).exists():
            raise ShardError(
                f"{where}: missing; {os.fspath(folder)} is not a data set, or its build did not finish (run it again)"
            )
        with RangeReader(where, folder if local else None) as file:
            return cls.from_bytes(file.read_all(), where)

    @classmethod
    def from_bytes(cls, data: bytes, where: str = MANIFEST) -> "Manifest":
        """Reads the manifest from the file's bytes.

        Raises:
            ShardError: see :meth:`load`.
        """
        manifest, problems = cls.examine(data, where)
        for message in problems:
            raise ShardError(message)
        return manifest

    @classmethod
    def examine(cls, data: bytes, where: str = MANIFEST) -> tuple["Manifest", list[str]]:
        """Reads like :meth:`from_bytes`, but gives all messages about what contradicts itself instead of the first.

        Raises:
            ShardError: not a manifest at all, or of another version.
        """
        content, problems = load_json(data, where), []
        if isinstance(content, dict):
            _check_version(content.pop("format_version", None), where)
            checksum = content.pop("checksum", None)
            if checksum is not None and checksum != _checksum(content):
                problems.append(
                    f"{where}: the checksum does not fit the content: damaged, or edited by hand (then delete the key "
                    "checksum)"
                )
        manifest = parse(cls, content, where)
        return manifest, problems + [f"{where}: {path} {message}" for path, message in manifest.problems()]

    def to_bytes(self) -> bytes:
        """Makes the JSON file."""
        content = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.made_by is None:  # so that other data sets can be read by older programs
            del content["made_by"]
        whole = {"format_version": FORMAT_VERSION, **content, "checksum": _checksum(content)}
        return (json.dumps(whole, indent=1) + "\n").encode()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Finds everything that contradicts itself, as (JSON path, message)."""
        if self.kind not in KINDS:
            yield "kind", f"is {self.kind!r}, needs one of {', '.join(KINDS)}"
            return
        wrong_fields = list(field_problems(self.kind, self.fields))
        yield from ((f"fields.{name}", message) for name, message in wrong_fields)
        if self.layout not in LAYOUTS:
            yield "layout", f"is {self.layout!r}, needs one of {', '.join(LAYOUTS)}"
        if not self.classes or len(set(self.classes)) != len(self.classes):
            yield "classes", "needs at least one name, and each only once"
        for fold in self.folds or ():
            if fold not in self.splits:
                yield "folds", f"names {fold!r}, which is not a split"
        if self.label_head is not None and not PLAIN_NAME.fullmatch(self.label_head.file):
            yield "label_head.file", f"is {self.label_head.file!r}, needs the plain name of a file in the folder"
        # Memory is taken for as many rows and bytes as are stated here, before any of them is read.
        row_bytes = 0 if wrong_fields else sum(spec.row_bytes for spec in self.columns.values())
        seen: set[str] = {MANIFEST}
        for split, shards in self.splits.items():
            for i, shard in enumerate(shards):
                yield from self._shard_problems(shard, f"splits.{split}[{i}]", seen, row_bytes)

    def _shard_problems(self, shard: Shard, path: str, seen: set[str], row_bytes: int) -> Iterator[tuple[str, str]]:
        if not PLAIN_NAME.fullmatch(shard.file) or shard.file in seen:
            yield f"{path}.file", f"is {shard.file!r}, needs the plain name of a file in the folder, each only once"
        seen.add(shard.file)
        if shard.rows < 0 or shard.bytes < 0:
            yield path, "has a negative number of rows or bytes"
        if shard.rows * row_bytes > shard.unpacked_bytes:
            size = shard.unpacked_bytes
            yield f"{path}.rows", f"is {shard.rows}, which {size} bytes cannot hold: a row takes {row_bytes}"
        if self.layout == "samples":
            if shard.blocks:
                yield f"{path}.blocks", "must be empty in layout samples"
            return
        if sum(block.rows for block in shard.blocks) != shard.rows:
            yield f"{path}.rows", f"is {shard.rows}, but its blocks have {sum(b.rows for b in shard.blocks)}"
        end = 0
        for i, block in enumerate(shard.blocks):
            if block.offset < end or block.bytes < 0 or block.rows < 1 or block.offset + block.bytes > shard.bytes:
                yield f"{path}.blocks[{i}]", "overlaps another, is empty, or goes beyond the end of the file"
            if not 0 <= block.unpacked_bytes <= MOST_EXPANSION * block.bytes:
                number, size = block.unpacked_bytes, block.bytes
                yield f"{path}.blocks[{i}].unpacked_bytes", f"is {number}, which {size} bytes cannot unpack to"
            end = block.offset + block.bytes


def _check_version(version: Any, where: str) -> None:
    if type(version) is not int or version < 1:
        raise ShardError(f"{where}: format_version needs a whole number, found {json.dumps(version)[:60]}")
    if version < FORMAT_VERSION:
        raise ShardError(
            f"{where}: format_version {version} is older than this program reads ({FORMAT_VERSION}): build the data "
            "set again (ss2a shards build, pack, compose or simulate)"
        )
    if version > FORMAT_VERSION:
        raise ShardError(
            f"{where}: format_version {version} is newer than this program reads ({FORMAT_VERSION}): "
            "upgrade lightning_ss2a"
        )


def _checksum(content: dict[str, Any]) -> str:
    """Computes the sha256 of the content, whatever the white space."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


VISUAL_FIELDS = ("global_visual", "sources")
"""Visual fields of kinds whose rows have no single visual embedding."""


def field_width(datasets: str | list[str], field: str) -> int:
    """Finds the width of a field of the first data set, as models need it when the command line is parsed.

    ``visual`` is also found under the names that it has in scenes and videos.

    Raises:
        ShardError: no such field.
    """
    folder = datasets if isinstance(datasets, str) else datasets[0]
    fields = Manifest.load(folder).fields
    for name, spec in fields.items():
        if name == field or spec.role == field or (field == "visual" and name in VISUAL_FIELDS):
            return spec.width
    raise ShardError(f"{folder}: no field {field!r}; this data set has {', '.join(fields)}")
