"""Reads rows of a data set as numpy columns, verified as they are read."""

import hashlib
import os
import zlib
from collections.abc import Collection, Iterator

import numpy as np

from lightning_ss2a.data.format.block_layout import decode_block, empty_column, slice_columns
from lightning_ss2a.data.format.columns import Column, Columns, Ragged, join_columns
from lightning_ss2a.data.format.manifest import Block, Manifest, Shard
from lightning_ss2a.data.format.sample_layout import decode_samples
from lightning_ss2a.data.format.schema import ColumnSpec
from lightning_ss2a.data.format.storage import RangeReader, join_url
from lightning_ss2a.errors import ShardError
from lightning_ss2a.files import is_local


class ShardReader:
    """Reads a data set of either layout, from a local folder or a URL.

    Each byte that is used is covered by a checksum (crc32 of the block; sha256 of the shard in layout ``samples``), and
    each column is checked against the manifest: type, shape, finite numbers, indices in range.
    May be pickled to worker processes; opens files only while it reads.

    Args:
        path: folder or URL of the data set.
        manifest: its manifest, if it is at hand.

    Raises:
        ShardError: no manifest, or a bad one.
    """

    def __init__(self, path: str | os.PathLike, manifest: Manifest | None = None) -> None:
        self.path = os.fspath(path)
        self.manifest = Manifest.load(path) if manifest is None else manifest
        self.columns = self.manifest.columns
        self._last_samples: tuple[str, tuple[str, ...], Columns] | None = None

    def read(
        self,
        split: str,
        shard_index: int,
        start: int = 0,
        stop: int | None = None,
        fields: Collection[str] | None = None,
    ) -> Columns:
        """Reads rows start to stop of a shard.

        Args:
            split: name of the split.
            shard_index: number of the shard in the split.
            start: first row in the shard.
            stop: row after the last; None: the shard's end.
            fields: columns to return; None: all.

        Returns:
            Columns as stored: arrays [rows, ...], text as numpy ``S``, :class:`Ragged` where ragged. Rows of one block
            are views into the bytes read.

        Raises:
            ShardError: names file, block, row and field of what is damaged or missing.
        """
        shard = self.manifest.shards(split)[shard_index]
        stop = shard.rows if stop is None else stop
        if not 0 <= start <= stop <= shard.rows:
            raise ShardError(f"{self._where(shard)}: no rows {start} to {stop}; the shard has {shard.rows}")
        wanted = self._wanted(fields)
        parts = list(self._blocks(shard, start, stop, wanted))
        if not parts:
            return {name: empty_column(self.columns[name]) for name in wanted}
        return {name: join_columns([part[name] for part in parts]) for name in wanted}

    def read_split(self, split: str, fields: Collection[str] | None = None) -> Columns:
        """Reads all rows of a split; memory holds them once, and one block.

        Raises:
            ShardError: see :meth:`read`.
        """
        wanted, shards = self._wanted(fields), self.manifest.shards(split)
        rows = sum(shard.rows for shard in shards)
        fillers = {name: _Filler(self.columns[name], rows) for name in wanted}
        for shard in shards:
            for part in self._blocks(shard, 0, shard.rows, wanted):
                for name in wanted:
                    fillers[name].append(part[name])
        return {name: filler.column() for name, filler in fillers.items()}

    def blocks(self, split: str, fields: Collection[str] | None = None) -> Iterator[Columns]:
        """Reads the rows of a split in order, a block at a time (a shard at a time in layout ``samples``).

        Raises:
            ShardError: see :meth:`read`.
        """
        wanted = self._wanted(fields)
        for shard in self.manifest.shards(split):
            yield from self._blocks(shard, 0, shard.rows, wanted)

    def _wanted(self, fields: Collection[str] | None) -> list[str]:
        wanted = list(self.columns) if fields is None else list(fields)
        for name in wanted:
            if name not in self.columns:
                raise ShardError(f"{self.path}: no field {name!r}; this data set has {', '.join(self.columns)}")
        return wanted

    def _where(self, shard: Shard) -> str:
        return join_url(self.path, shard.file)

    def _open(self, shard: Shard) -> RangeReader:
        where = self._where(shard)
        file = RangeReader(where, self.path if is_local(self.path) else None)
        if file.size not in (None, shard.bytes):
            file.close()
            raise ShardError(
                f"{where}: has {file.size} bytes, the manifest says {shard.bytes}; truncated or replaced: "
                "restore the file or build the data set again"
            )
        return file

    def _blocks(self, shard: Shard, start: int, stop: int, wanted: list[str]) -> Iterator[Columns]:
        if self.manifest.layout == "samples":
            if start < stop:
                yield slice_columns(self._samples(shard, wanted), start, stop)
            return
        with self._open(shard) as file:
            first = 0
            for number, block in enumerate(shard.blocks):
                if first < stop and first + block.rows > start:
                    where = f"{self._where(shard)}: block {number}"
                    columns = decode_block(read_block(file, block, where), self.columns, number, block, where, wanted)
                    inside = max(start - first, 0), min(stop - first, block.rows)
                    yield columns if inside == (0, block.rows) else slice_columns(columns, *inside)
                first += block.rows

    def _samples(self, shard: Shard, wanted: list[str]) -> Columns:
        """Decodes a whole shard; the last one is cached, so that reading it piece by piece decodes it once."""
        key = (shard.file, tuple(wanted))
        if self._last_samples is None or self._last_samples[:2] != key:
            where = self._where(shard)
            with self._open(shard) as file:
                data = _verified_bytes(file, shard, where)
            columns = decode_samples(data, self.columns, self.manifest.classes, shard.rows, where, wanted)
            self._last_samples = (*key, columns)
        return self._last_samples[2]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_last_samples": None}


class _Filler:
    """Gathers a column block by block: numbers go straight to their place."""

    def __init__(self, spec: ColumnSpec, rows: int) -> None:
        self.spec = spec
        self.filled = 0
        self.parts: list[Column] = [empty_column(spec)]
        in_place = not (spec.ragged or spec.is_text)
        self.whole = np.empty((rows, *spec.inner), spec.dtype) if in_place else None

    def append(self, part: Column) -> None:
        if self.whole is not None:
            self.whole[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
        else:
            # A copy where the part is a view: or else it would keep its whole block in memory.
            copied = Ragged(part.values.copy(), part.offsets.copy()) if isinstance(part, Ragged) else part.copy()
            self.parts.append(copied)

    def column(self) -> Column:
        return self.whole if self.whole is not None else join_columns(self.parts)


def read_block(file: RangeReader, block: Block, where: str) -> memoryview:
    """Reads the bytes of a block, checked against its crc32.

    Raises:
        ShardError: truncated or damaged.
    """
    if file.size is not None and block.offset + block.bytes > file.size:
        raise ShardError(f"{where}: ends before its {block.bytes} bytes; the file is truncated")
    # np.empty, not bytearray: the bytes are overwritten at once, and the views into them are writable.
    try:
        buffer = np.empty(block.bytes, np.uint8).data
    except MemoryError:
        raise ShardError(f"{where}: its {block.bytes} bytes do not fit in memory") from None
    if file.read_into(buffer, block.offset) != block.bytes:
        raise ShardError(f"{where}: ends before its {block.bytes} bytes; the file is truncated")
    if zlib.crc32(buffer) != block.crc32:
        raise ShardError(f"{where}: crc32 is not the manifest's; the file is damaged: restore it or build it again")
    return buffer


def _verified_bytes(file: RangeReader, shard: Shard, where: str) -> bytes:
    data = file.read_all()
    if len(data) != shard.bytes:
        raise ShardError(f"{where}: has {len(data)} bytes, the manifest says {shard.bytes}; truncated or replaced")
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise ShardError(f"{where}: sha256 is not the manifest's; the file is damaged: restore it or build it again")
    return data
