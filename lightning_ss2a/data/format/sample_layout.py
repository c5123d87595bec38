"""Encodes rows as one sample each, as other tools do, and back: ``000000017.visual.npy``, ``000000017.json``."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from webdataset.tariterators import group_by_keys

from lightning_ss2a.data.format import npy
from lightning_ss2a.data.format.block_layout import check_column, empty_column, refuse_pickle
from lightning_ss2a.data.format.columns import Column, Columns, Ragged
from lightning_ss2a.data.format.convert import group_of
from lightning_ss2a.data.format.schema import PAIR_ORIGINS, ColumnSpec
from lightning_ss2a.data.format.strict_json import load_json
from lightning_ss2a.data.format.tar import read_entries, write_entries
from lightning_ss2a.errors import ShardError

_JSON_TYPES = {
    "key": str,
    "name": str,
    "class": str,
    "class_index": int,
    "classes": list,
    "pair_origin": str,
    "group": int,
}


def encode_samples(columns: Mapping[str, Column], first_row: int, classes: Sequence[str]) -> bytes:
    """Encodes rows as tar entries: arrays as ``.npy``, the rest as ``.json``."""
    return write_entries(_samples(columns, first_row, classes))


def _samples(columns: Mapping[str, Column], first_row: int, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row in range(len(columns["key"])):
        sample: dict[str, Any] = {"__key__": f"{first_row + row:09d}"}
        facts: dict[str, Any] = {}
        for name, column in columns.items():
            value = column.row(row) if isinstance(column, Ragged) else column[row]
            if name == "pair_origin":
                facts[name] = PAIR_ORIGINS[int(value)]
            elif name == "class_index":
                facts |= {"class_index": int(value), "class": classes[int(value)]}
            elif name == "classes":
                facts[name] = [classes[index] for index in value]
            elif isinstance(value, bytes):
                facts[name] = value.decode()
            elif isinstance(value, np.ndarray):
                sample[f"{name}.npy"] = npy.encode(value)
            else:
                facts[name] = int(value)
        sample["json"] = json.dumps(facts).encode()
        yield sample


def decode_samples(
    data: bytes,
    specs: Mapping[str, ColumnSpec],
    classes: Sequence[str],
    rows: int,
    where: str,
    wanted: Collection[str] | None = None,
) -> Columns:
    """Decodes and checks the columns of a shard in layout ``samples``.

    Args:
        data: the tar file.
        specs: all columns of the data set.
        classes: names of the classes.
        rows: number of rows that the manifest states.
        where: start of error messages: the file.
        wanted: columns to decode; None: all.

    Raises:
        ShardError: anything but what the manifest says.
    """
    columns = sample_columns(data, specs, classes, rows, where, wanted)
    for name, column in columns.items():
        check_column(column, specs[name], rows, where, name)
    return columns


def sample_columns(
    data: bytes,
    specs: Mapping[str, ColumnSpec],
    classes: Sequence[str],
    rows: int,
    where: str,
    wanted: Collection[str] | None = None,
) -> Columns:
    """Decodes like :func:`decode_samples`, but values are not checked yet."""
    names = list(specs) if wanted is None else list(wanted)
    arrays = {name for name, spec in specs.items() if _is_array(spec)}
    values: dict[str, list[Any]] = {name: [] for name in names}
    numbers = {name: number for number, name in enumerate(classes)}
    for sample in _grouped(data, {f"{name}.npy" for name in arrays} | {"json", "cls"}, where):
        place = f"{where}, sample {sample['__key__']}"
        facts = _facts(sample, numbers, place)
        for name in names:
            if name in arrays:
                if f"{name}.npy" not in sample:
                    raise ShardError(f"{place}: member {name}.npy is missing")
                values[name].append(_array(sample[f"{name}.npy"], specs[name], f"{place}, field {name}"))
            else:
                values[name].append(facts[name])
    found = len(values[names[0]]) if names else rows
    if found != rows:
        raise ShardError(f"{where}: holds {found} samples, the manifest says {rows}")
    return {name: _column(values[name], specs[name], f"{where}, field {name}") for name in names}


def _is_array(spec: ColumnSpec) -> bool:
    return spec.is_float


def _grouped(data: bytes, expected: set[str], where: str) -> Iterator[dict[str, Any]]:
    """Groups members as WebDataset does, over our strict tar reader."""

    def members() -> Iterator[dict[str, Any]]:
        for member, content in read_entries(memoryview(data), where):
            refuse_pickle(member, where)
            key, _, suffix = member.partition(".")
            if not key or suffix not in expected:
                raise ShardError(f"{where}: member {member!r} does not belong here; expected {', '.join(expected)}")
            yield {"fname": member, "data": content, "__url__": where}

    return group_by_keys(members(), lcase=False, handler=_reraise)


def _reraise(error: Exception) -> bool:
    raise error


def _array(content: memoryview, spec: ColumnSpec, where: str) -> np.ndarray:
    array = npy.decode(content, where)
    inner = array.shape[1:] if spec.ragged and array.ndim else array.shape
    if array.dtype != np.dtype(spec.dtype) or inner != spec.inner:
        wanted = ["items", *spec.inner] if spec.ragged else list(spec.inner)
        raise ShardError(f"{where} is {array.dtype} {list(array.shape)}, needs {spec.dtype} {wanted}")
    return array


def _facts(sample: Mapping[str, Any], classes: Mapping[str, int], where: str) -> dict[str, Any]:
    """Reads all of a row that is not an array; ``.cls`` may give the class where there is no ``.json``."""
    facts = load_json(bytes(sample["json"]), where) if "json" in sample else {}
    if not isinstance(facts, dict):
        raise ShardError(f"{where}: .json needs an object")
    for name, kind in _JSON_TYPES.items():
        if name in facts and type(facts[name]) is not kind:
            raise ShardError(f"{where}: {name} in .json needs {kind.__name__}, found {json.dumps(facts[name])[:40]}")
    key = facts.get("key", sample["__key__"]).encode()
    if "cls" in sample:
        facts.setdefault("class_index", _whole_number(bytes(sample["cls"]), where))
    if "class" in facts:
        index = _class_index(facts["class"], classes, where)
        if facts.setdefault("class_index", index) != index:
            raise ShardError(f"{where}: class_index {facts['class_index']} is not class {facts['class']!r}")
    if facts.get("pair_origin", PAIR_ORIGINS[0]) not in PAIR_ORIGINS:
        raise ShardError(f"{where}: pair_origin is {facts['pair_origin']!r}, needs one of {', '.join(PAIR_ORIGINS)}")
    return {
        "key": key,
        "name": facts.get("name", "").encode(),
        "class_index": facts.get("class_index", 0 if len(classes) == 1 else -1),
        "classes": [_class_index(name, classes, where) for name in facts.get("classes", [])],
        "pair_origin": PAIR_ORIGINS.index(facts.get("pair_origin", PAIR_ORIGINS[0])),
        "group": facts.get("group", group_of(key)),
    }


def _class_index(name: Any, classes: Mapping[str, int], where: str) -> int:
    if not isinstance(name, str) or name not in classes:
        raise ShardError(f"{where}: class {name!r} is not one of the manifest's classes")
    return classes[name]


def _whole_number(text: bytes, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ShardError(f"{where}: .cls needs a whole number, found {text[:20]!r}") from None


def _column(values: list[Any], spec: ColumnSpec, where: str) -> Column:
    if not values:
        return empty_column(spec)
    try:
        if spec.ragged:
            dtype = np.dtype(spec.dtype)
            return Ragged.from_rows([np.asarray(v, dtype).reshape(-1, *spec.inner) for v in values], spec.inner, dtype)
        if spec.is_text:
            return np.array(values, dtype=f"S{max(1, *map(len, values))}")
        return np.stack(values) if _is_array(spec) else np.array(values, dtype=spec.dtype)
    except (OverflowError, ValueError) as error:
        raise ShardError(f"{where} does not fit {spec.dtype} ({error})") from None
