"""Shows a data set as tables."""

import hashlib
import heapq
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_ss2a.data.format.columns import Column, Columns, Ragged, dense, ragged
from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.format.reader import ShardReader
from lightning_ss2a.data.format.schema import PAIR_ORIGINS

TABLE_WIDTH = 120
_MOST_CLASSES = 1000
"""Classes in the table: a hundred thousand lines take half a minute to lay out, and nobody reads them."""


@dataclass
class FieldStatistics:
    """Norms of a field's embeddings, and how many rows hold the same bytes as a row before them."""

    count: int = 0
    total: float = 0.0
    least: float = np.inf
    most: float = 0.0
    repeated_rows: int = 0
    _seen: set[bytes] = field(default_factory=set, repr=False)

    def update(self, column: Column) -> None:
        """Adds rows."""
        values = column.values if isinstance(column, Ragged) else column
        norms = np.linalg.norm(values.reshape(-1, values.shape[-1]).astype(np.float32), axis=1)
        self.count += len(norms)
        self.total += float(norms.sum(dtype=np.float64))
        self.least = min(self.least, float(norms.min(initial=np.inf)))
        self.most = max(self.most, float(norms.max(initial=0.0)))
        for row in range(len(column)):
            content = column.row(row) if isinstance(column, Ragged) else column[row]
            digest = hashlib.blake2b(np.ascontiguousarray(content).tobytes(), digest_size=12).digest()
            self.repeated_rows += digest in self._seen
            self._seen.add(digest)


@dataclass
class SplitStatistics:
    """Counts of a split."""

    rows: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    origins: Counter[int] = field(default_factory=Counter)
    groups: set[int] = field(default_factory=set)

    def update(self, columns: Columns) -> None:
        """Adds rows."""
        self.rows += len(columns["key"])
        labels = ragged(columns["classes"]).values if "classes" in columns else dense(columns["class_index"])
        self.classes.update(labels.tolist())
        self.origins.update(dense(columns["pair_origin"]).tolist())
        self.groups.update(dense(columns["group"]).tolist())


def inspect_dataset(path: str | os.PathLike, width: int = TABLE_WIDTH) -> str:
    """Shows a data set as text: splits, classes, pair origins, fields with norms and duplicates, label head.

    Of more than 1,000 classes the table has those with the most rows, and the sum of the others. Reads (and checks)
    every row.

    Args:
        path: folder or URL of the data set.
        width: characters in a line.

    Raises:
        ShardError: the data set is damaged; ``ss2a shards validate`` tells everything that is wrong.
    """
    reader = ShardReader(path)
    manifest = reader.manifest
    fields = {name: FieldStatistics() for name in manifest.fields}
    splits = {split: SplitStatistics() for split in manifest.splits}
    for split, statistics in splits.items():
        for columns in reader.blocks(split):
            statistics.update(columns)
            for name, field_statistics in fields.items():
                field_statistics.update(columns[name])
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=False, markup=False, emoji=False, highlight=False)
    console.print(_heading(path, manifest))
    for table in (_split_table(manifest, splits), _class_table(manifest, splits), _field_table(manifest, fields)):
        console.print(table)
    console.print(_label_head_line(path, manifest))
    return text.getvalue()


def _heading(path: str | os.PathLike, manifest: Manifest) -> str:
    lines = [f"{os.fspath(path)}: {manifest.kind}, {manifest.rows():,} rows, layout {manifest.layout}"]
    lines += [
        f"{name}: {text}" for name, text in (("provenance", manifest.provenance), ("licence", manifest.licence)) if text
    ]
    lines += [f"folds: {', '.join(manifest.folds)}"] if manifest.folds else []
    lines += [f"made with {name}: {text}" for name, text in (manifest.made_by or {}).items()]
    return "\n".join(lines)


def _split_table(manifest: Manifest, splits: dict[str, SplitStatistics]) -> Table:
    table = _table("Splits", ["split", "rows", "groups", "shards", "bytes", *PAIR_ORIGINS])
    for split, statistics in splits.items():
        shards = manifest.splits[split]
        numbers = [statistics.rows, len(statistics.groups), len(shards), sum(shard.bytes for shard in shards)]
        numbers += [statistics.origins[i] for i in range(len(PAIR_ORIGINS))]
        table.add_row(split, *_formatted(numbers))
    return table


def _class_table(manifest: Manifest, splits: dict[str, SplitStatistics]) -> Table:
    table = _table("Classes", ["class", *splits])
    counts = [statistics.classes for statistics in splits.values()]
    most = heapq.nlargest(_MOST_CLASSES, range(len(manifest.classes)), lambda index: sum(c[index] for c in counts))
    for index in sorted(most):
        table.add_row(manifest.classes[index], *_formatted(count[index] for count in counts))
    if rest := len(manifest.classes) - len(most):
        left_out = [count.total() - sum(count[index] for index in most) for count in counts]
        table.add_row(f"{rest:,} more classes", *_formatted(left_out))
    return table


def _field_table(manifest: Manifest, fields: dict[str, FieldStatistics]) -> Table:
    names = ["field", "width", "views", "dtype", "norm mean", "min", "max", "repeated rows", "encoder"]
    table = _table("Fields", names)
    for name, spec in manifest.fields.items():
        statistics = fields[name]
        views = "any number" if spec.ragged else str(spec.views or 1)
        norms = [statistics.total / max(1, statistics.count), min(statistics.least, statistics.most), statistics.most]
        repeated = f"{statistics.repeated_rows:,}"
        table.add_row(name, str(spec.width), views, spec.dtype, *(f"{x:.4g}" for x in norms), repeated, spec.encoder)
    return table


def _label_head_line(path: str | os.PathLike, manifest: Manifest) -> str:
    if manifest.label_head is None:
        return "Label head: none"
    head = manifest.load_label_head(path)
    return f"Label head: {len(head.labels)} labels over audio of width {head.width} ({manifest.label_head.file})"


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        text = i == 0 or name in ("dtype", "encoder")
        table.add_column(name, justify="left" if text else "right", overflow="fold")
    return table


def _formatted(numbers: Iterator[int] | list[int]) -> list[str]:
    return [f"{number:,}" for number in numbers]
