"""Finds all that is wrong with a data set, at once. Executes nothing, follows no link outside."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from lightning_ss2a.data.format.block_layout import block_column, block_members
from lightning_ss2a.data.format.columns import Column, column_problems, dense, zero_vectors
from lightning_ss2a.data.format.manifest import MANIFEST, Manifest, Shard
from lightning_ss2a.data.format.reader import read_block
from lightning_ss2a.data.format.sample_layout import sample_columns
from lightning_ss2a.data.format.schema import ColumnSpec
from lightning_ss2a.data.format.storage import PLAIN_NAME, RangeReader, join_url
from lightning_ss2a.errors import ShardError
from lightning_ss2a.files import is_local, local_path

ROWS_NAMED = 100
"""Rows that are named for one field of one file; more are counted."""

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Problem:
    """Something wrong.

    Attributes:
        file: name in the data set's folder.
        message: what is wrong.
        row: number of the row in the file.
        field: name of the field.
    """

    file: str
    message: str
    row: int | None = None
    field: str | None = None

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        field = "" if self.field is None else f", field {self.field}"
        return f"{self.file}{row}{field}: {self.message}"


def validate_dataset(path: str | os.PathLike) -> list[Problem]:
    """Finds all problems of a data set; an empty list if there are none.

    Checks the manifest, every file's size and sha256, every block's crc32, members, types, shapes, finite numbers,
    vectors of zeros, indices in range, keys that come twice, groups in more than one split, the label head, and files
    left over.

    Args:
        path: folder or URL of the data set.
    """
    return list(_Validator(os.fspath(path)).problems())


class _Validator:
    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = local_path(path) if is_local(path) else None
        self.keys: dict[str, list[np.ndarray]] = {}
        self.groups: dict[str, list[np.ndarray]] = {}

    def problems(self) -> Iterator[Problem]:
        try:
            with RangeReader(join_url(self.path, MANIFEST), self.folder) as file:
                manifest, messages = Manifest.examine(file.read_all(), MANIFEST)
        except ShardError as error:
            yield Problem(MANIFEST, str(error).removeprefix(f"{MANIFEST}: "))
            return
        yield from (Problem(MANIFEST, message.removeprefix(f"{MANIFEST}: ")) for message in messages)
        if any(path.startswith(("kind", "fields", "layout")) for path, _ in manifest.problems()):
            return  # without knowing the columns, nothing can be said about shards
        for split, shards in manifest.splits.items():
            if not sum(shard.rows for shard in shards):
                yield Problem(MANIFEST, f"split {split} has no rows")
            for shard in shards:
                if PLAIN_NAME.fullmatch(shard.file):
                    yield from self._shard(manifest, split, shard)
        yield from self._repeated_keys()
        yield from self._groups_in_two_splits()
        yield from self._label_head(manifest)
        yield from self._left_over(manifest)

    def _shard(self, manifest: Manifest, split: str, shard: Shard) -> Iterator[Problem]:
        try:
            with RangeReader(join_url(self.path, shard.file), self.folder) as file:
                damage = list(_file_problems(file, shard))
                yield from damage
                if manifest.layout == "blocks":
                    yield from _shortened(self._blocks(manifest, split, shard, file))
                elif not damage:
                    yield from _shortened(self._samples(manifest, split, shard, file))
        except ShardError as error:
            yield Problem(shard.file, self._short(error, shard))

    def _short(self, error: ShardError, shard: Shard) -> str:
        return str(error).removeprefix(join_url(self.path, shard.file)).removeprefix(":").lstrip(" ,")

    def _blocks(self, manifest: Manifest, split: str, shard: Shard, file: RangeReader) -> Iterator[Problem]:
        first = 0
        for number, block in enumerate(shard.blocks):
            where = f"block {number}"
            try:
                members = block_members(read_block(file, block, where), manifest.columns, number, block, where)
            except ShardError as error:
                yield Problem(shard.file, str(error))
                members = {}
            for name, spec in manifest.columns.items() if members else ():
                try:
                    column = block_column(members, spec, name, where)
                except ShardError as error:
                    yield Problem(shard.file, str(error), field=name)
                else:
                    found = list(_row_problems(column, spec, block.rows))
                    yield from (Problem(shard.file, m, None if r is None else first + r, name) for r, m in found)
                    self._remember(split, name, column, usable=all(row is not None for row, _ in found))
            first += block.rows

    def _samples(self, manifest: Manifest, split: str, shard: Shard, file: RangeReader) -> Iterator[Problem]:
        data = file.read_all()
        columns = sample_columns(data, manifest.columns, manifest.classes, shard.rows, join_url(self.path, shard.file))
        for name, column in columns.items():
            for row, message in _row_problems(column, manifest.columns[name], shard.rows):
                yield Problem(shard.file, message, row, name)
            self._remember(split, name, column, usable=True)

    def _remember(self, split: str, name: str, column: Column, usable: bool) -> None:
        if usable and name in ("key", "group"):
            memory = self.keys if name == "key" else self.groups
            memory.setdefault(split, []).append(dense(column).copy())

    def _repeated_keys(self) -> Iterator[Problem]:
        keys = [key for parts in self.keys.values() for part in parts for key in part.tolist()]
        repeated = [(key, times) for key, times in Counter(keys).items() if times > 1]
        for key, times in repeated[:ROWS_NAMED]:
            yield Problem(MANIFEST, f"key {key.decode(errors='replace')!r} is that of {times} rows", field="key")
        if len(repeated) > ROWS_NAMED:
            yield Problem(MANIFEST, f"{len(repeated) - ROWS_NAMED} more keys come more than once", field="key")

    def _groups_in_two_splits(self) -> Iterator[Problem]:
        groups = {split: np.unique(np.concatenate(parts)) for split, parts in self.groups.items()}
        for one, other in combinations(groups, 2):
            common = np.intersect1d(groups[one], groups[other], assume_unique=True)
            if len(common):
                message = f"{len(common)} groups are in split {one} and in split {other}, such as {common[0]}"
                yield Problem(MANIFEST, message, field="group")

    def _label_head(self, manifest: Manifest) -> Iterator[Problem]:
        if manifest.label_head is not None and PLAIN_NAME.fullmatch(manifest.label_head.file):
            try:
                manifest.load_label_head(self.path)
            except ShardError as error:
                yield Problem(manifest.label_head.file, str(error).removeprefix(f"{self.path.rstrip('/')}/"))

    def _left_over(self, manifest: Manifest) -> Iterator[Problem]:
        """Finds shards and temporary files that the manifest does not know; other files may lie beside them."""
        known = {shard.file for shards in manifest.splits.values() for shard in shards}
        for file in sorted(Path(self.folder).iterdir()) if self.folder is not None else ():
            if file.name not in known and file.suffix in (".tar", ".tmp"):
                yield Problem(file.name, "is not in the manifest; remove it")


def _file_problems(file: RangeReader, shard: Shard) -> Iterator[Problem]:
    """Checks size and sha256, in constant memory."""
    sha256, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_CHUNK))
    if file.size not in (None, shard.bytes):
        yield Problem(shard.file, f"has {file.size} bytes, the manifest says {shard.bytes}")
        return
    while size < shard.bytes and (found := file.read_into(buffer[: shard.bytes - size], size)):
        sha256.update(buffer[:found])
        size += found
    if size != shard.bytes:
        yield Problem(shard.file, f"has {size} bytes, the manifest says {shard.bytes}")
    elif sha256.hexdigest() != shard.sha256:
        yield Problem(shard.file, "sha256 is not the manifest's")


def _row_problems(column: Column, spec: ColumnSpec, rows: int) -> Iterator[tuple[int | None, str]]:
    """Finds what makes a column unreadable, as (row, message), and vectors of zeros, which nothing but this refuses."""
    found = list(column_problems(column, spec, rows))
    yield from found
    if spec.role == "embedding" and not found:
        yield from ((int(row), "holds a vector of zeros, which has no direction") for row in zero_vectors(column))


def _shortened(problems: Iterator[Problem]) -> Iterator[Problem]:
    """Passes the first rows of each field on; the others are counted."""
    seen: Counter[tuple[str, str | None]] = Counter()
    for problem in problems:
        if problem.row is not None:
            seen[problem.file, problem.field] += 1
        if problem.row is None or seen[problem.file, problem.field] <= ROWS_NAMED:
            yield problem
    for (file, field), count in seen.items():
        if count > ROWS_NAMED:
            yield Problem(file, f"{count - ROWS_NAMED} more rows with problems", field=field)
