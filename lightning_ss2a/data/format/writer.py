"""Writes rows into the folder of a data set, atomically and resumably, in constant memory."""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lightning_ss2a.data.format.block_layout import encode_block, slice_columns
from lightning_ss2a.data.format.columns import Columns, join_columns
from lightning_ss2a.data.format.compression import SUFFIX, Compression, compress
from lightning_ss2a.data.format.convert import ColumnConverter
from lightning_ss2a.data.format.journal import FinishedShard, Journal
from lightning_ss2a.data.format.label_head import LabelHead
from lightning_ss2a.data.format.manifest import MANIFEST, Block, FileReference, Manifest, Shard
from lightning_ss2a.data.format.sample_layout import encode_samples
from lightning_ss2a.data.format.schema import KINDS, FieldSpec
from lightning_ss2a.data.format.source_marks import source_mark
from lightning_ss2a.data.format.staging import JOURNAL, STAGING, foreign_files, publish
from lightning_ss2a.data.format.storage import PLAIN_NAME
from lightning_ss2a.data.format.tar import END_OF_ARCHIVE
from lightning_ss2a.errors import InputError, ShardError
from lightning_ss2a.files import FolderLock, WholeFile, local_path, to_path, write_whole

LABEL_HEAD = "label_head.safetensors"


@dataclass
class _OpenShard:
    """A shard that grows under a temporary name."""

    folder: Path
    name: str
    rows: int = 0
    size: int = 0
    blocks: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.file = WholeFile(self.folder / self.name, durable=True)

    def append(self, data: bytes) -> None:
        self.file.stream.write(data)
        self.sha256.update(data)
        self.size += len(data)

    def append_block(self, data: bytes, rows: int, unpacked_bytes: int) -> None:
        self.blocks.append(Block(self.size, len(data), rows, zlib.crc32(data), unpacked_bytes))
        self.append_samples(data, rows)

    def append_samples(self, data: bytes, rows: int) -> None:
        self.append(data)
        self.rows += rows

    def finish(self) -> Shard:
        self.append(END_OF_ARCHIVE)
        self.file.commit()
        return Shard(self.name, self.rows, self.size, self.sha256.hexdigest(), tuple(self.blocks))


@dataclass
class _Split:
    """Rows of a split that wait for a full block, and the shard that they go to."""

    pending: list[Columns] = field(default_factory=list)
    waiting: int = 0
    received: int = 0
    shard: _OpenShard | None = None


class ShardWriter:
    """Writes a data set; a context manager. Memory holds at most one block of each split.

    All files are written into a folder inside the data set's, ``staging``, and take their places by :meth:`close`, the
    manifest last; until then a data set that was there stays whole. With ``rows_from``, a build that stops (an error, a
    kill) goes on where it was: open the same folder with the same description, ask :meth:`rows_written`, and write the
    rows from there on. Equal rows give equal bytes, however often the build was stopped.

    Args:
        folder: the data set; made if need be.
        kind: ``pairs``, ``scenes`` or ``videos``.
        fields: the embedding fields.
        classes: names of the classes, in the order of ``class_index``.
        provenance: where the media come from.
        licence: licence of the media.
        folds: names of splits that are folds of a cross-validation.
        label_head: label head of the audio encoder.
        layout: ``blocks``, or ``samples`` for one sample in each tar entry group, as other tools read and write.
        compression: ``gzip`` compresses the members and the label head for which it pays (by 10 % at least), for data
            that repeat themselves, in layout ``blocks`` only. Memory holds unpacked rows all the same.
        block_rows: rows in a block.
        shard_rows: rows in a shard.
        overwrite: replace a data set in the folder, or an unfinished one of another description; other files there
            stay.
        rows_from: what the rows come from and in which order; a build goes on only from the same. None: a build that
            stopped starts again.
        beside: patterns of other files that the build leaves in ``staging``, such as ``truth/*.npz``.
        made_by: how the rows were made of media, for the manifest.

    Attributes:
        folder: as given.
        staging: folder for files that belong to the data set; they appear in ``folder`` together with the manifest.
        manifest: what is written; it lists the shards once the data set is closed.

    Raises:
        ShardError: the folder holds a data set, an unfinished one of another description, or files of others that
            would be replaced; or a source has changed.
        InputError: another writer is at work there.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        kind: str,
        fields: Mapping[str, FieldSpec],
        classes: Sequence[str],
        *,
        provenance: str = "",
        licence: str = "",
        folds: Sequence[str] | None = None,
        label_head: LabelHead | None = None,
        layout: Literal["blocks", "samples"] = "blocks",
        compression: Compression = "none",
        block_rows: int = 1024,
        shard_rows: int = 65536,
        overwrite: bool = False,
        rows_from: str | None = None,
        beside: Sequence[str] = (),
        made_by: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = to_path(folder)
        self.staging = self.folder / STAGING
        self.compression = compression
        self.block_rows = block_rows
        self.shard_rows = shard_rows
        self.folds = None if folds is None else tuple(folds)
        self.label_head = label_head
        if kind not in KINDS or min(block_rows, shard_rows) < 1:
            raise ShardError(
                f"{folder}: needs a kind of {', '.join(KINDS)}, and block_rows and shard_rows of at least 1"
            )
        if compression not in get_args(Compression) or (compression != "none" and layout != "blocks"):
            raise ShardError(
                f"{folder}: compression is {compression!r}, needs one of {', '.join(get_args(Compression))}; in layout "
                "samples, which other tools read, only none"
            )
        self.manifest = Manifest(
            kind,
            dict(fields),
            tuple(classes),
            {},
            layout=layout,
            provenance=provenance,
            licence=licence,
            made_by=None if made_by is None else dict(made_by),
        )
        for path, message in self.manifest.problems():
            raise ShardError(f"{folder}: {path} {message}")
        self._convert = ColumnConverter(self.manifest.columns, len(self.manifest.classes))
        self._splits: dict[str, _Split] = {}
        self._finished: dict[str, list[Shard]] = {}
        self._rows_finished: Counter[str] = Counter()
        self._beside = beside
        self._goes_on = rows_from is not None
        # All that decides which bytes go into which file.
        head = "" if label_head is None else hashlib.sha256(label_head.to_bytes()).hexdigest()
        description = [asdict(self.manifest), head, block_rows, shard_rows, compression, rows_from]
        self._journal = Journal(self.staging / JOURNAL, json.dumps(description))
        self._sources: set[str] = set()
        self._new_sources: dict[str, str] = {}  # since the last line of the journal
        self._closed = False
        check_output_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.folder)
        try:
            self._go_on(overwrite)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abandon()

    def rows_written(self, split: str) -> int:
        """Counts the rows of a split in finished shards: those that a resumed build skips."""
        return self._rows_finished[split]

    def write(
        self,
        split: str,
        columns: Mapping[str, Any],
        *,
        source: str | None = None,
        places: Sequence[str] | None = None,
    ) -> None:
        """Appends rows to a split.

        Args:
            split: name of the split.
            columns: whole columns: arrays [rows, ...] or lists; ragged fields as :class:`Ragged` or a list of arrays
                [items, width]. ``name``, ``pair_origin``, ``group`` and a ``class_index`` of one class may be left out.
            source: path or URL of the file that they were read from; a build goes on only while those that finished
                shards were made of are the same.
            places: where each row was read, for messages. None: it is named by its number in the split.

        Raises:
            ShardError: names row and field of what cannot be stored: NaN, a wrong width, a number beyond float16.
        """
        if not PLAIN_NAME.fullmatch(split):
            raise ShardError(f"{self.folder}: split {split!r} needs a name of letters, digits, '-', '_' and '.'")
        state = self._splits.setdefault(split, _Split(received=self.rows_written(split)))
        where, received = f"{self.folder}: split {split}", state.received

        def name_row(row: int) -> str:
            return f"{where}: row {received + row}" if places is None else places[row]

        rows = self._convert(columns, where, name_row)
        if source is not None and source not in self._sources:
            self._sources.add(source)
            self._new_sources[source] = source_mark(source)
        count = len(rows["key"])
        if not count:
            return
        state.pending.append(rows)
        state.waiting += count
        state.received += count
        self._flush(split, state, last=False)

    def close(self) -> None:
        """Finishes the shards, writes the manifest and puts all in place.

        Raises:
            ShardError: nothing was written, or a fold without rows.
        """
        for split, state in self._splits.items():
            self._flush(split, state, last=True)
        if self.label_head is not None:
            self.manifest = replace(self.manifest, label_head=self._save_label_head(self.label_head))
        splits = {split: tuple(shards) for split, shards in self._finished.items()}
        self.manifest = replace(self.manifest, splits=splits, folds=self.folds)
        if not self.manifest.splits:
            raise ShardError(f"{self.folder}: no rows were written")
        for path, message in self.manifest.problems():
            raise ShardError(f"{self.folder}: {path} {message}")
        self._check_foreign()  # again: hours may have passed
        with WholeFile(self.staging / MANIFEST, durable=True) as file:
            file.write(self.manifest.to_bytes())
        publish(self.folder)
        self._closed = True
        self._lock.release()

    def abandon(self) -> None:
        """Stops without finishing; finished shards stay for a build that goes on. Does nothing after :meth:`close`."""
        if self._closed:
            return
        self._closed = True
        for state in self._splits.values():
            if state.shard is not None:
                state.shard.file.abandon()
        self._splits.clear()
        is_whole = (self.staging / MANIFEST).exists()  # what could not be put in place waits for the next writer
        if not is_whole and not (self._goes_on and self._finished):
            shutil.rmtree(self.staging, ignore_errors=True)
        self._lock.release()

    def _go_on(self, overwrite: bool) -> None:
        publish(self.folder)
        self._check_foreign()
        if (self.folder / MANIFEST).exists() and not overwrite:
            raise ShardError(f"{self.folder}: holds a finished data set; choose another folder, or overwrite it")
        try:
            finished = self._finished_before()
        except ShardError:
            if not overwrite:
                raise
            finished = []
        if not finished:
            shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(exist_ok=True)
        for leftover in self.staging.rglob(".*.tmp"):
            leftover.unlink()
        for each in finished:
            self._add(each.split, each.shard)

    def _check_foreign(self) -> None:
        heads = (LABEL_HEAD, LABEL_HEAD + SUFFIX) if self.label_head is not None else ()
        _refuse_foreign(foreign_files(self.folder, heads, self._beside))

    def _finished_before(self) -> list[FinishedShard]:
        """Reads what an earlier build has finished, and checks that it is still there and what it was made of."""
        finished = self._journal.read()
        for each in finished:
            file = self.staging / each.shard.file
            if not file.is_file() or file.stat().st_size != each.shard.bytes:
                raise ShardError(f"{file}: a finished shard is missing or changed; overwrite the data set")
            for source, mark in each.sources.items():
                now = source_mark(source)
                if mark and now and mark != now:
                    raise ShardError(
                        f"{source}: has changed since the unfinished build in {self.folder} read it; restore it, or "
                        "overwrite the data set"
                    )
        return finished

    def _add(self, split: str, shard: Shard) -> None:
        self._finished.setdefault(split, []).append(shard)
        self._rows_finished[split] += shard.rows

    def _flush(self, split: str, state: _Split, last: bool) -> None:
        """Writes full blocks; all rows, if these are the last."""
        if not last and state.waiting < self._next_block_rows(state):
            return
        if state.waiting:
            rows = {name: join_columns([part[name] for part in state.pending]) for name in state.pending[0]}
            start = 0
            while state.waiting >= (size := self._next_block_rows(state)) or (last and state.waiting):
                size = min(size, state.waiting)
                self._write_block(split, state, slice_columns(rows, start, start + size))
                start, state.waiting = start + size, state.waiting - size
            # A copy, so that a long column is not kept alive by its last rows.
            rest = _copy(slice_columns(rows, start, start + state.waiting))
            state.pending = [rest] if state.waiting else []
        if last and state.shard is not None:
            self._finish_shard(split, state)

    def _next_block_rows(self, state: _Split) -> int:
        return min(self.block_rows, self.shard_rows - (state.shard.rows if state.shard is not None else 0))

    def _write_block(self, split: str, state: _Split, rows: Columns) -> None:
        if state.shard is None:
            number = len(self._finished.get(split, ()))
            state.shard = _OpenShard(self.staging, f"{split}-{number:06d}.tar")
        shard = state.shard
        if self.manifest.layout == "blocks":
            data, unpacked_bytes = encode_block(rows, len(shard.blocks), self.compression)
            shard.append_block(data, len(rows["key"]), unpacked_bytes)
        else:
            data = encode_samples(rows, self.rows_written(split) + shard.rows, self.manifest.classes)
            shard.append_samples(data, len(rows["key"]))
        if shard.rows == self.shard_rows:
            self._finish_shard(split, state)

    def _finish_shard(self, split: str, state: _Split) -> None:
        assert state.shard is not None
        finished = state.shard.finish()
        state.shard = None
        self._add(split, finished)
        if self._goes_on:
            self._journal.append(FinishedShard(split, finished, self._new_sources))
            self._new_sources = {}

    def _save_label_head(self, head: LabelHead) -> FileReference:
        if head.width != self.manifest.fields["audio"].width:
            raise ShardError(
                f"{self.folder}: the label head scores embeddings of width {head.width}, but field audio "
                f"has width {self.manifest.fields['audio'].width}"
            )
        content = head.to_bytes()
        packed = compress(content) if self.compression == "gzip" else None
        name, data = (LABEL_HEAD, content) if packed is None else (LABEL_HEAD + SUFFIX, packed)
        write_whole(self.staging / name, data)
        return FileReference(name, hashlib.sha256(data).hexdigest(), len(content))


def check_not_source(output: str | os.PathLike, sources: Sequence[str]) -> None:
    """Refuses to write a data set over one that it is made from: overwriting would delete what is to be read.

    Raises:
        InputError: the output is one of the sources.
    """
    folder = to_path(output)
    for source in map(local_path, sources):
        if os.path.exists(source) and folder.exists() and folder.samefile(source):
            raise InputError(f"{output}: the output is the source; choose another folder")


def check_output(output: str | os.PathLike, overwrite: bool, beside: Sequence[str] = ()) -> None:
    """Checks before the work that a data set can be written, or hours of it end in an error.

    Args:
        output: folder of the data set, which need not exist and is not made.
        overwrite: whether a data set in it may be replaced.
        beside: patterns of other files that the build leaves there.

    Raises:
        ShardError: the folder holds a data set that may not be replaced, or files of others that would be, or cannot be
            written.
    """
    folder = to_path(output)
    _refuse_foreign(foreign_files(folder, (), beside))
    if (folder / MANIFEST).exists() and not overwrite:
        raise ShardError(f"{output}: holds a finished data set; choose another folder, or overwrite it")
    check_output_folder(folder)


def _refuse_foreign(files: Iterable[Path]) -> None:
    for file in files:
        raise ShardError(f"{file}: is of no data set of ours and might be replaced; move it, or choose another folder")


def check_output_folder(folder: Path) -> None:
    """Checks that a data set can be written to a folder, which need not exist and is not made.

    Raises:
        ShardError: it cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=next(path for path in (folder, *folder.parents) if path.exists())):
            pass
    except OSError as error:
        raise ShardError(
            f"{folder}: cannot be the folder of a data set ({error.strerror}); name a folder that can be written"
        ) from error


def _copy(columns: Columns) -> Columns:
    return {name: join_columns([column[:0], column]) for name, column in columns.items()}
