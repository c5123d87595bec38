"""Packs foreign shards, and our own in another layout, order or number of files, into a data set."""

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import Any, Literal

import numpy as np

from lightning_ss2a.data.format import npy
from lightning_ss2a.data.format.block_layout import slice_columns
from lightning_ss2a.data.format.columns import Columns, Ragged, join_columns
from lightning_ss2a.data.format.compatibility import load_manifests, origins_of, widest_field
from lightning_ss2a.data.format.compression import Compression
from lightning_ss2a.data.format.convert import group_of
from lightning_ss2a.data.format.foreign_tar import read_samples
from lightning_ss2a.data.format.manifest import Manifest
from lightning_ss2a.data.format.reader import ShardReader
from lightning_ss2a.data.format.schema import PAIR_ORIGINS, FieldSpec
from lightning_ss2a.data.format.strict_json import load_json
from lightning_ss2a.data.format.writer import ShardWriter, check_not_source, check_output
from lightning_ss2a.errors import ShardError

_ROWS_AT_ONCE = 1024
_MEMBERS_NAMED = 10
_MOST_NUMBERED_CLASSES = 10_000
"""Classes that are numbers become 0 to the greatest of them, up to here; greater ones are names like any other."""


@dataclass(frozen=True)
class SampleMapping:
    """Where the columns of a pair are in foreign samples.

    Facts are written as the member that holds them and, for ``.json``, the path in it: ``cls``, ``txt``,
    ``json:label``, ``json:video.id``.

    Attributes:
        fields: member of each embedding field, such as ``{"visual": "clip.npy", "audio": "clap.npy"}``.
        encoders: encoder of each field.
        class_from: fact that is the class: a name, or with ``cls`` a number. None: one class, ``unlabelled``.
        group_from: fact that rows of one group share. None: each row is its own group.
        name_from: fact that is the name of the object. None: no name.
        key_from: fact that is the row's key. None: the sample's own key.
        pair_origin: ``annotated``, ``curated`` or ``translated``, of all rows.
        dtype: ``float16`` or ``float32``, as stored.
    """

    fields: dict[str, str]
    encoders: dict[str, str]
    class_from: str | None = None
    group_from: str | None = None
    name_from: str | None = None
    key_from: str | None = None
    pair_origin: Literal["annotated", "curated", "translated"] = "annotated"
    dtype: Literal["float16", "float32"] = "float16"


def pack_samples(
    sources: Sequence[str],
    output: str,
    mapping: SampleMapping,
    *,
    split: str = "train",
    classes: Sequence[str] | None = None,
    provenance: str = "",
    licence: str = "",
    compression: Compression = "none",
    block_rows: int = 1024,
    shard_rows: int = 65536,
    overwrite: bool = False,
) -> Manifest:
    """Converts tars with one pair in each entry group, as other tools write them. Goes on where it stopped.

    Args:
        sources: tars: paths or URLs, in the order of the rows.
        output: folder of the data set.
        mapping: where things are in the samples.
        split: name of the split.
        classes: names of the classes. None: those that occur, sorted; the sources are then read twice.
        provenance: where the media come from.
        licence: licence of the media.
        compression: gzip compresses what gets at least 10 % smaller by it, for data that repeat themselves.
        block_rows: rows in a block.
        shard_rows: rows in a shard.
        overwrite: replace a data set in the folder.

    Returns:
        The manifest written.

    Raises:
        ShardError: names tar, key and field of what is missing or wrong; or the tar that has changed since the build
            that is to go on.
    """
    if set(mapping.fields) != set(mapping.encoders):
        raise ShardError(f"{output}: fields are {sorted(mapping.fields)}, encoders are {sorted(mapping.encoders)}")
    check_output(output, overwrite)
    first = next(foreign_samples(sources), None)
    if first is None:
        raise ShardError(f"{', '.join(map(str, sources))}: no samples")
    names = tuple(classes) if classes is not None else _class_names(sources, mapping)
    numbers = {name: number for number, name in enumerate(names)}
    fields = {name: _field_spec(first, name, mapping) for name in mapping.fields}
    with ShardWriter(
        output,
        "pairs",
        fields,
        names,
        provenance=provenance,
        licence=licence,
        compression=compression,
        block_rows=block_rows,
        shard_rows=shard_rows,
        overwrite=overwrite,
        rows_from=json.dumps([[os.fspath(source) for source in sources], asdict(mapping), split]),
    ) as writer:
        samples = islice(_with_keys_once(foreign_samples(sources), mapping), writer.rows_written(split), None)
        # Cut where a source ends, so that the writer knows which of them a finished shard was made of.
        for source, own in groupby(samples, lambda sample: sample["__url__"]):
            while part := [
                (_place(sample), _row(sample, mapping, numbers, fields)) for sample in islice(own, _ROWS_AT_ONCE)
            ]:
                places, rows = zip(*part, strict=True)
                writer.write(split, _as_columns(rows), source=source, places=places)
    return writer.manifest


def repack_dataset(
    sources: Sequence[str],
    output: str,
    *,
    layout: Literal["blocks", "samples"] = "blocks",
    compression: Compression = "none",
    shuffle_seed: int | None = None,
    block_rows: int = 1024,
    shard_rows: int = 65536,
    overwrite: bool = False,
) -> Manifest:
    """Copies data sets of ours, of any kind, into one: another layout, sizes or order. Goes on where it stopped.

    Args:
        sources: folders or URLs of data sets with the same kind, fields, encoders and classes.
        output: folder of the data set.
        layout: layout of the copy.
        compression: as :func:`pack_samples`; layout ``blocks`` only.
        shuffle_seed: shuffle the rows of each split; the split must fit in memory. None: keep the order.
        block_rows: rows in a block.
        shard_rows: rows in a shard.
        overwrite: replace a data set in the folder.

    Returns:
        The manifest written.

    Raises:
        ShardError: a source is damaged, or they do not go together.
        InputError: the output is a source.
    """
    check_not_source(output, sources)
    manifests = load_manifests([os.fspath(source) for source in sources])
    readers = [ShardReader(source, manifest) for source, manifest in zip(sources, manifests, strict=True)]
    heads = [m.load_label_head(source) for source, m in zip(sources, manifests, strict=True) if m.label_head]
    first = manifests[0]
    with ShardWriter(
        output,
        first.kind,
        {name: widest_field(name, manifests) for name in first.fields},
        first.classes,
        folds=first.folds,
        label_head=heads[0] if heads else None,
        layout=layout,
        compression=compression,
        block_rows=block_rows,
        shard_rows=shard_rows,
        overwrite=overwrite,
        rows_from=json.dumps([[manifest.to_bytes().decode() for manifest in manifests], shuffle_seed]),
        **origins_of(manifests),
    ) as writer:
        for split in dict.fromkeys(split for manifest in manifests for split in manifest.splits):
            holders = [reader for reader in readers if split in reader.manifest.splits]
            parts = (part for reader in holders for part in reader.blocks(split))
            shuffled = parts if shuffle_seed is None else _shuffled(holders, split, shuffle_seed)
            for part in _after(shuffled, writer.rows_written(split)):
                writer.write(split, part)
    return writer.manifest


def foreign_samples(sources: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Reads the samples of tars in turn; see :func:`read_samples`.

    Raises:
        ShardError: a tar cannot be read.
    """
    for source in sources:
        yield from read_samples(source)


def _place(sample: dict[str, Any]) -> str:
    return f"{sample['__url__']}: sample {sample['__key__']!r}"


def _member(sample: dict[str, Any], member: str, what: str) -> bytes:
    if member not in sample:
        there = sorted(name for name in sample if not name.startswith("__"))
        named = ", ".join(there[:_MEMBERS_NAMED]) + (", ..." if len(there) > _MEMBERS_NAMED else "")
        advice = (
            "the first dot of a file's name ends the key: rename files whose keys hold dots"
            if any(name.endswith(f".{member}") for name in there)
            else "if the tar holds it further on, sort the tar by key: the members of a sample follow each other"
        )
        raise ShardError(
            f"{_place(sample)}: {what} is missing: no member .{member} (there are {len(there)}: {named[:400]}); "
            f"{advice}"
        )
    return sample[member]


def _embedding(sample: dict[str, Any], name: str, mapping: SampleMapping) -> np.ndarray:
    data = _member(sample, mapping.fields[name], f"field {name}")
    array = npy.decode(memoryview(data), f"{_place(sample)}, field {name}")
    if array.dtype.kind != "f" or array.ndim not in (1, 2):
        raise ShardError(
            f"{_place(sample)}, field {name} is {array.dtype} {list(array.shape)}, needs real numbers [width] or "
            "[views, width]"
        )
    return array


def _field_spec(sample: dict[str, Any], name: str, mapping: SampleMapping) -> FieldSpec:
    shape = _embedding(sample, name, mapping).shape
    return FieldSpec(shape[-1], mapping.encoders[name], mapping.dtype, views=shape[0] if len(shape) == 2 else None)


def _fact(sample: dict[str, Any], source: str, what: str) -> str:
    member, _, path = source.partition(":")
    data = _member(sample, member, what)
    if not path:
        return _text(sample, data.decode("utf-8-sig", errors="surrogateescape").strip(), what)
    value = load_json(data, f"{_place(sample)} .{member}")
    for step in path.split("."):
        if not isinstance(value, dict) or step not in value:
            raise ShardError(f"{_place(sample)}: {what} is missing: no {path} in .{member}")
        value = value[step]
    if value is None or isinstance(value, dict | list):
        raise ShardError(f"{_place(sample)}: {what} is {json.dumps(value)[:60]}, needs text or a number")
    return _text(sample, str(value), what)


def _text(sample: dict[str, Any], text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ShardError(f"{_place(sample)}: {what} is not UTF-8 text: {text!r}") from None
    if not text and what != "the name":
        raise ShardError(f"{_place(sample)}: {what} is empty")
    return text


def _key(sample: dict[str, Any], mapping: SampleMapping) -> str:
    if mapping.key_from is not None:
        return _fact(sample, mapping.key_from, "the key")
    return _text(sample, sample["__key__"], "the key")


def _with_keys_once(samples: Iterator[dict[str, Any]], mapping: SampleMapping) -> Iterator[dict[str, Any]]:
    """Passes samples on; a key that comes again is an error, since tars often number their samples from 0 each."""
    seen: set[int] = set()
    for sample in samples:
        key = _key(sample, mapping)
        number = group_of(key.encode())
        if number in seen:
            raise ShardError(
                f"{_place(sample)}: key {key!r} came before; name a fact that is different in every sample (key_from)"
            )
        seen.add(number)
        yield sample


def _class_names(sources: Sequence[str], mapping: SampleMapping) -> tuple[str, ...]:
    if mapping.class_from is None:
        return ("unlabelled",)
    found = {_fact(sample, mapping.class_from, "the class") for sample in foreign_samples(sources)}
    if all(map(_is_number, found)):
        return tuple(str(number) for number in range(max(map(int, found)) + 1))
    return tuple(sorted(found))


def _is_number(name: str) -> bool:
    """Tells whether it is the number of a class, as one counts them."""
    return name.isdecimal() and len(name) < 9 and name == str(int(name)) and int(name) < _MOST_NUMBERED_CLASSES


def _row(
    sample: dict[str, Any], mapping: SampleMapping, classes: dict[str, int], fields: dict[str, FieldSpec]
) -> dict[str, Any]:
    row: dict[str, Any] = {"key": _key(sample, mapping), "pair_origin": PAIR_ORIGINS.index(mapping.pair_origin)}
    for name, spec in fields.items():
        row[name] = _embedding(sample, name, mapping)
        expected = (spec.width,) if spec.views is None else (spec.views, spec.width)
        if row[name].shape != expected:
            raise ShardError(
                f"{_place(sample)}, field {name} is {list(row[name].shape)}, the first sample's is {list(expected)}"
            )
    if mapping.name_from is not None:
        row["name"] = _fact(sample, mapping.name_from, "the name")
    group = row["key"] if mapping.group_from is None else _fact(sample, mapping.group_from, "the group")
    row["group"] = group_of(group.encode())
    row["class_index"] = 0
    if mapping.class_from is not None:
        row["class_index"] = _class_index(sample, _fact(sample, mapping.class_from, "the class"), mapping, classes)
    return row


def _class_index(sample: dict[str, Any], name: str, mapping: SampleMapping, classes: dict[str, int]) -> int:
    if name in classes:
        return classes[name]
    if mapping.class_from == "cls" and _is_number(name) and int(name) < len(classes):
        return int(name)
    raise ShardError(f"{_place(sample)}: class {name!r} is not one of the {len(classes)} classes given")


def _as_columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _after(parts: Iterator[Columns], rows: int) -> Iterator[Columns]:
    """Leaves out the first rows."""
    for part in parts:
        count = len(part["key"])
        if rows < count:
            yield slice_columns(part, rows, count)
        rows = max(0, rows - count)


def _shuffled(readers: Sequence[ShardReader], split: str, seed: int) -> Iterator[Columns]:
    parts = [reader.read_split(split) for reader in readers]
    columns = {name: join_columns([part[name] for part in parts]) for name in parts[0]}
    order = np.random.default_rng([seed, zlib.crc32(split.encode())]).permutation(len(columns["key"]))
    for start in range(0, len(order), _ROWS_AT_ONCE):
        index = order[start : start + _ROWS_AT_ONCE]
        yield {name: c.take(index) if isinstance(c, Ragged) else c[index] for name, c in columns.items()}
