"""Parses JSON into dataclasses, strictly: wrong types, missing and unknown keys are errors that name the place."""

import dataclasses
import json
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from lightning_ss2a.errors import ShardError

Parsed = TypeVar("Parsed")

_NAMES = {
    int: "a whole number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    dict: "an object",
    list: "a list",
    tuple: "a list",
}


def load_json(text: bytes, where: str) -> Any:
    """Parses JSON, with or without a byte-order mark; NaN and infinity are refused.

    Raises:
        ShardError: it is not JSON.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{where}: not valid JSON ({error}); restore the file or build the data set again") from None


def parse(kind: type[Parsed], value: Any, where: str, path: str = "") -> Parsed:
    """Turns a JSON value into an instance of a (nested) type: dataclass, dict, tuple, list, union, int, str or bool.

    Raises:
        ShardError: names the file and the JSON path of what does not fit.
    """
    return cast(Parsed, _parse(kind, value, where, path))  # no annotation says "what this annotation describes"


def _parse(kind: Any, value: Any, where: str, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, where, path)
    generic, arguments = get_origin(kind), get_args(kind)
    if generic is UnionType:
        if value is None and NoneType in arguments:
            return None
        return _parse(next(a for a in arguments if a is not NoneType), value, where, path)
    if generic is dict and isinstance(value, dict):
        return {name: _parse(arguments[1], item, where, _join(path, name)) for name, item in value.items()}
    if generic in (list, tuple) and isinstance(value, list):
        return generic(_parse(arguments[0], item, where, f"{path}[{i}]") for i, item in enumerate(value))
    if generic is None and type(value) is kind:
        return value
    wanted = _NAMES[generic or kind]
    raise ShardError(f"{where}: {path or 'the file'} needs {wanted}, found {json.dumps(value)[:60]}")


def _parse_dataclass(kind: Any, value: Any, where: str, path: str) -> Any:
    if not isinstance(value, dict):
        raise ShardError(f"{where}: {path or 'the file'} needs an object, found {json.dumps(value)[:60]}")
    hints, members = _members(kind)
    for name in value:
        if name not in members:
            raise ShardError(f"{where}: unknown key {_join(path, name)}; known here: {', '.join(members)}")
    for name, member in members.items():
        if name not in value and member.default is dataclasses.MISSING:
            raise ShardError(f"{where}: missing key {_join(path, name)}")
    return kind(**{name: _parse(hints[name], item, where, _join(path, name)) for name, item in value.items()})


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@lru_cache
def _members(kind: Any) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    """Finds the types and the fields of a dataclass; cached, for a manifest has one of a kind for each block."""
    return get_type_hints(kind), {member.name: member for member in dataclasses.fields(kind)}
