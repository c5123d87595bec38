"""Reads rows of some splits of some data sets, numbered through, from their shards."""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from itertools import pairwise

import numpy as np
import torch

from lightning_ss2a.data.format.columns import Columns, Ragged, join_columns, zero_vectors
from lightning_ss2a.data.format.manifest import Manifest, Shard
from lightning_ss2a.data.format.reader import ShardReader
from lightning_ss2a.data.format.storage import join_url
from lightning_ss2a.data.loading.tensors import Column, RaggedRows, Rows
from lightning_ss2a.errors import ShardError

CHUNK_ROWS = 4096
READ_THREADS = 2
EVALUATION_COLUMNS = ("group", "key")
UNUSED_COLUMNS = ("name",)


def columns_of(manifest: Manifest, evaluation: bool) -> list[str]:
    """Names the columns of a batch: embeddings, classes, pair origin; for evaluation key and group as well."""
    skipped = UNUSED_COLUMNS if evaluation else UNUSED_COLUMNS + EVALUATION_COLUMNS
    return [name for name in manifest.columns if name not in skipped]


class ShardRows:
    """Rows of the given splits, in the order of the data sets, their splits, shards and blocks.

    After :meth:`select`, those that take part, numbered from 0 without gaps: a place. :meth:`row_numbers` maps back.

    Args:
        datasets: folders or URLs.
        manifests: manifest of each data set.
        splits: names of the splits of each data set.
        columns: columns to read.

    Raises:
        ShardError: there are no rows.
    """

    def __init__(
        self,
        datasets: Sequence[str],
        manifests: Sequence[Manifest],
        splits: Sequence[Sequence[str]],
        columns: Sequence[str],
    ) -> None:
        self.columns = list(columns)
        self.views = {name: f.views for name, f in manifests[0].fields.items() if f.views and name in self.columns}
        self._specs = {name: manifests[0].columns[name] for name in self.columns}
        self._zeros_unnamed = {name for name, spec in self._specs.items() if spec.role == "embedding"}
        self._dtypes = {
            name: np.result_type(*(m.columns[name].dtype for m in manifests))
            for name, spec in self._specs.items()
            if not spec.is_text
        }
        self._readers = [ShardReader(*pair) for pair in zip(datasets, manifests, strict=True)]
        # Reading, checksums and copies leave Python's lock; decoding single samples does not.
        self._threads = READ_THREADS if all(m.layout == "blocks" for m in manifests) else 1
        # (data set, split, shard) of each shard, and (shard, first row in it) of each block, in order.
        self._shards = [
            (i, split, number, shard)
            for i, manifest in enumerate(manifests)
            for split in splits[i]
            for number, shard in enumerate(manifest.shards(split))
        ]
        self._blocks = [
            (number, int(first))
            for number, (*_, shard) in enumerate(self._shards)
            for first in _first_rows(shard)[: len(shard.blocks) or 1]
        ]
        shard_starts = np.cumsum([0] + [shard.rows for *_, shard in self._shards])
        if not shard_starts[-1]:
            raise ShardError(f"{', '.join(map(str, datasets))}: no rows in the splits {', '.join(map(str, splits))}")
        # Where each block starts: its row number, and its place among the rows that take part.
        self._firsts = np.array([shard_starts[n] + first for n, first in self._blocks] + [shard_starts[-1]])
        self._starts = self._firsts
        self.numbers: np.ndarray | None = None
        owners = np.array([i for i, *_ in self._shards], dtype=np.int64)
        self.bounds = shard_starts[np.searchsorted(owners, np.arange(len(datasets) + 1))]

    def select(self, numbers: np.ndarray) -> "ShardRows":
        """Selects the rows with these numbers, int64 [rows that take part], increasing."""
        assert self.numbers is None
        selected = copy(self)
        selected.numbers = numbers
        selected._starts = np.searchsorted(numbers, self._firsts)
        return selected

    @property
    def total(self) -> int:
        """Number of rows that take part."""
        return int(self._starts[-1])

    @property
    def all_rows(self) -> int:
        """Number of rows, whether they take part or not."""
        return int(self._firsts[-1])

    def row_numbers(self, places: np.ndarray) -> np.ndarray:
        """Maps places to row numbers, int64 [rows]."""
        return places if self.numbers is None else self.numbers[places]

    def chunks(self) -> list[np.ndarray]:
        """Cuts each data set into runs of whole blocks of about 4,096 rows, cheap to read; of each, what takes part.

        Returns:
            Ranges of places, int64 [n, 2].
        """
        if self.numbers is None:
            return self._all_chunks()
        chunks = [np.searchsorted(self.numbers, rows) for rows in self._all_chunks()]
        return [places[places[:, 1] > places[:, 0]] for places in chunks]

    def _all_chunks(self) -> list[np.ndarray]:
        chunks: list[list[tuple[int, int]]] = [[] for _ in self._readers]
        start = 0
        for i, _, _, shard in self._shards:
            firsts = _first_rows(shard)
            cuts = firsts[np.searchsorted(firsts, np.arange(0, shard.rows, CHUNK_ROWS))]
            chunks[i] += [(start + a, start + b) for a, b in pairwise(np.unique([0, *cuts, shard.rows])) if b > a]
            start += shard.rows
        return [np.array(c, dtype=np.int64).reshape(-1, 2) for c in chunks]

    def read(self, ranges: np.ndarray) -> Rows:
        """Reads the rows of ranges of places [n, 2], laid end to end."""
        # Without rows, a block is asked for none of its: that tells the types of text and ragged columns.
        pieces = list(self._pieces(ranges)) or [(0, 0, 0)]
        places = np.cumsum([0] + [stop - start for _, start, stop in pieces]).tolist()
        rows = self._allocate(places[-1])

        def fill(piece: tuple[int, int, int], place: int) -> Columns:
            """Puts the columns of fixed shape where they belong, and returns the others."""
            columns = self._read_block(*piece)
            for name, column in rows.items():
                part = columns.pop(name)
                column[place : place + len(part)] = part
            return {name: _copy(column) for name, column in columns.items()}

        with ThreadPoolExecutor(self._threads) as threads:
            others = list(threads.map(fill, pieces, places))
        columns = {**rows, **{name: join_columns([part[name] for part in others]) for name in others[0]}}
        return {name: _as_column(columns[name]) for name in self.columns}

    def read_all(self) -> Rows:
        """Reads all rows."""
        return self.read(np.array([[0, self.total]]))

    def _allocate(self, rows: int) -> dict[str, np.ndarray]:
        """Makes arrays for the columns of fixed shape, to be filled piece by piece: memory holds the rows only once."""
        try:
            return {
                name: np.empty((rows, *spec.inner), self._dtypes[name])
                for name, spec in self._specs.items()
                if not (spec.ragged or spec.is_text)
            }
        except MemoryError as error:
            raise ShardError(
                f"{rows} rows do not fit in memory ({error}); use data.residency=stream, or less data.shuffle_rows"
            ) from error

    def _pieces(self, ranges: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """Cuts ranges at blocks: (block, start, stop), of the block's rows that take part those start to stop."""
        for start, stop in ranges:
            first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
            for block in range(first, last + 1) if stop > start else ():
                offset, end = self._starts[block : block + 2]
                lower, upper = int(max(start, offset) - offset), int(min(stop, end) - offset)
                if upper > lower:
                    yield block, lower, upper

    def _read_block(self, block: int, start: int, stop: int) -> Columns:
        number, first = self._blocks[block]
        i, split, shard, _ = self._shards[number]
        if self.numbers is None or start == stop:
            rows = np.arange(start, stop)
        else:
            places = self._starts[block] + np.array([start, stop])
            rows = self.numbers[slice(*places)] - self._firsts[block]
        # A block is checked and decoded as a whole, so that all between the first and the last row costs nothing more.
        begin, end = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (start, stop)
        columns = self._readers[i].read(split, shard, first + begin, first + end, self.columns)
        if len(rows) != end - begin:
            columns = {name: _taken(column, rows - begin) for name, column in columns.items()}
        self._name_zeros(columns, join_url(self._readers[i].path, self._shards[number][-1].file), first + rows)
        return columns

    def _name_zeros(self, columns: Columns, file: str, rows: np.ndarray) -> None:
        """Warns of the first vector of zeros in each field: it can be read, and makes losses and metrics useless."""
        for name in columns:
            if name in self._zeros_unnamed and len(zeros := zero_vectors(columns[name])):
                with suppress(KeyError):  # another thread that reads has named it meanwhile
                    self._zeros_unnamed.remove(name)
                    warnings.warn(
                        f"{file}, row {rows[zeros[0]]}, field {name}: holds a vector of zeros, which has no direction; "
                        "ss2a shards validate names all such rows",
                        stacklevel=2,
                    )


def _first_rows(shard: Shard) -> np.ndarray:
    """Numbers the first row of each block, and the end; a shard without blocks is one."""
    return np.cumsum([0] + ([block.rows for block in shard.blocks] or [shard.rows]))


def _taken(column: np.ndarray | Ragged, rows: np.ndarray) -> np.ndarray | Ragged:
    return column.take(rows) if isinstance(column, Ragged) else column[rows]


def _copy(column: np.ndarray | Ragged) -> np.ndarray | Ragged:
    """Copies a column: a view would keep all bytes of its block in memory."""
    return Ragged(column.values.copy(), column.offsets.copy()) if isinstance(column, Ragged) else column.copy()


def _as_column(column: np.ndarray | Ragged) -> Column:
    if isinstance(column, Ragged):
        return RaggedRows(_as_tensor(column.values), _as_tensor(column.offsets))
    return column if column.dtype.kind == "S" else _as_tensor(column)


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements="W"))
