"""Defines what each kind of data set holds: names, types and shapes of columns."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

PAIR_ORIGINS = ("annotated", "curated", "translated")
"""Where the audio of a row comes from; the column ``pair_origin`` holds the position in this tuple."""

FRAMES_PER_VIDEO = 64
"""Frames of a row of kind ``videos`` (supplement of the paper, temporal aggregation)."""

TEXT = "text"
FLOATS = ("float16", "float32")


@dataclass(frozen=True)
class FieldSpec:
    """One embedding field.

    Attributes:
        width: numbers in an embedding.
        encoder: name of the encoder that made it; data sets trained together must agree.
        dtype: ``float16`` or ``float32``, as stored.
        views: embeddings of the same thing in each row (crops, segments); training draws one. None: one, without an
            axis for it.
        ragged: any number of embeddings in a row (at least one).
        role: ``visual`` or ``audio``, where the field's name does not tell (frames may be of either).
    """

    width: int
    encoder: str
    dtype: str = "float16"
    views: int | None = None
    ragged: bool = False
    role: str | None = None


@dataclass(frozen=True)
class ColumnSpec:
    """How a column is stored.

    Attributes:
        dtype: numpy name, or ``text`` (numpy ``S``, UTF-8).
        inner: shape of a row; of one item of a ragged row.
        ragged: any number of items in a row, at least ``min_items``.
        min_items: see ``ragged``; for text, the least number of bytes.
        below: integers must be at least 0 and below this number; None: any.
        role: ``embedding`` (described in the manifest's ``fields``) or ``column``.
    """

    dtype: str
    inner: tuple[int, ...] = ()
    ragged: bool = False
    min_items: int = 0
    below: int | None = None
    role: str = "column"

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes, at least."""
        if self.is_text:
            return self.min_items
        return np.dtype(self.dtype).itemsize * math.prod(self.inner) * (self.min_items if self.ragged else 1)

    @property
    def is_text(self) -> bool:
        """Whether it holds text."""
        return self.dtype == TEXT

    @property
    def is_float(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype in FLOATS


@dataclass(frozen=True)
class Kind:
    """Fields and columns that every data set of a kind has.

    Attributes:
        fields: required embedding fields.
        columns: all other columns.
        ragged: those of the fields that are ragged.
        sequences: those of the fields that are [frames, width] in each row.
    """

    fields: tuple[str, ...]
    columns: tuple[str, ...]
    ragged: frozenset[str] = field(default_factory=frozenset)
    sequences: frozenset[str] = field(default_factory=frozenset)


KINDS: dict[str, Kind] = {
    "pairs": Kind(("visual", "audio"), ("key", "name", "class_index", "pair_origin", "group")),
    "scenes": Kind(
        ("sources", "global_visual", "audio"),
        ("key", "name", "classes", "pair_origin", "group"),
        ragged=frozenset({"sources"}),
    ),
    "videos": Kind(
        ("frames", "audio"),
        ("key", "name", "class_index", "pair_origin", "group", "timestamps"),
        sequences=frozenset({"frames"}),
    ),
}


def column_specs(kind: str, fields: Mapping[str, FieldSpec], num_classes: int) -> dict[str, ColumnSpec]:
    """Lists all columns of a data set: its embedding fields, then the columns of its kind."""
    columns = {
        "key": ColumnSpec(TEXT, min_items=1),
        "name": ColumnSpec(TEXT),
        "class_index": ColumnSpec("int32", below=num_classes),
        "classes": ColumnSpec("int32", ragged=True, below=num_classes),
        "pair_origin": ColumnSpec("uint8", below=len(PAIR_ORIGINS)),
        "group": ColumnSpec("int64"),
        "timestamps": ColumnSpec("float32", (FRAMES_PER_VIDEO,)),
    }
    embeddings = {name: _embedding_column(KINDS[kind], name, spec) for name, spec in fields.items()}
    return embeddings | {name: columns[name] for name in KINDS[kind].columns}


def _embedding_column(kind: Kind, name: str, spec: FieldSpec) -> ColumnSpec:
    frames = (FRAMES_PER_VIDEO,) if name in kind.sequences else ()
    views = () if spec.views is None else (spec.views,)
    return ColumnSpec(spec.dtype, (*views, *frames, spec.width), spec.ragged, int(spec.ragged), role="embedding")


def field_problems(kind: str, fields: Mapping[str, FieldSpec]) -> Iterator[tuple[str, str]]:
    """Finds the fields that a data set of this kind cannot have, or lacks, as (field, message)."""
    rules = KINDS[kind]
    for name in rules.fields:
        if name not in fields:
            yield name, f"is missing: a data set of kind {kind} has the fields {', '.join(rules.fields)}"
    for name, spec in fields.items():
        if not name.isidentifier() or name in rules.columns or name.endswith("__"):
            yield name, "is not a name that a field can have: use letters, digits and _, and no name of a column"
        if spec.width < 1:
            yield name, f"width is {spec.width}, needs at least 1"
        if spec.dtype not in FLOATS:
            yield name, f"dtype is {spec.dtype}, needs one of {', '.join(FLOATS)}"
        if not spec.encoder:
            yield name, "encoder is empty: name the encoder that made the embeddings"
        if spec.views is not None and spec.views < 1:
            yield name, f"views is {spec.views}, needs at least 1 (or null)"
        if name in rules.fields and spec.ragged != (name in rules.ragged):
            yield name, f"ragged is {spec.ragged}, but in kind {kind} it is {name in rules.ragged}"
        if name not in rules.fields and spec.ragged:
            yield name, "cannot be ragged: a batch has one mask, valid, which is that of the kind's own ragged field"
        if spec.views is not None and (spec.ragged or name in rules.sequences):
            yield name, "cannot have views"
