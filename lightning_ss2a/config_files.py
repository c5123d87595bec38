"""Configuration files of ``lightning``: a file may name the files that it builds on, its bases."""

import os
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lightning_ss2a.errors import InputError, nearest_name

BASE = "base"
"""Top-level key that names a file's bases: a path or a list of paths, relative to the folder of the file."""

SUFFIXES = (".yaml", ".yml", ".json")
"""Of configuration files."""


def with_bases(file: str | os.PathLike[str]) -> list[Path]:
    """Lists a configuration file after its bases, and each of these after its own.

    Args:
        file: path of a configuration file; one that cannot be read, or is no mapping, counts as a file without bases.

    Returns:
        The files in the order in which they are merged; a base that several files name comes once, at its first place.

    Raises:
        InputError: a base is missing, holds no options, or builds on the file that names it.
    """
    listed: list[Path] = []
    _list_after_bases(Path(file), listed, ())
    return listed


def names_bases(file: str | os.PathLike[str]) -> bool:
    """Tells whether a file is a configuration with the key ``base``."""
    return sets_option(file, BASE)


def sets_option(file: str | os.PathLike[str], name: str) -> bool:
    """Tells whether a file is a configuration that has a top-level option, and not null."""
    return (_mapping(Path(file)) or {}).get(name) is not None


def read_config(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a configuration file, merged with its bases.

    A file's values replace those of its bases, key by key; lists are replaced as a whole, and ``NAME+`` appends to the
    list ``NAME``. Where a file names another class (``class_path``), the options of the base's class are dropped.

    Args:
        file: path of a YAML file.

    Raises:
        InputError: as ``with_bases``, or the file itself holds no options.
    """
    merged: dict[str, Any] = {}
    for path in with_bases(file):
        own = _mapping(path)
        if own is None:
            raise InputError(f"{path}: no YAML mapping of options")
        merged = _merged(merged, {key: value for key, value in own.items() if key != BASE})
    return deepcopy(merged)


def _list_after_bases(file: Path, listed: list[Path], naming: tuple[Path, ...]) -> None:
    """Appends a file to the list, after its bases; ``naming`` are the files that led to it."""
    for base in _bases(file):
        if any(base.samefile(other) for other in (*naming, file)):
            raise InputError(f"{file}: {BASE}: {base} builds on this file itself")
        if not any(base.samefile(other) for other in listed):
            _list_after_bases(base, listed, (*naming, file))
    listed.append(file)


def _bases(file: Path) -> list[Path]:
    """The bases that a file names, checked."""
    named = (_mapping(file) or {}).get(BASE, [])
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: {BASE}: expected a file or a list of files, found {named!r}")
    folder = file.resolve().parent  # of the file itself, where the path given is a link to it
    bases = [_shown(folder / name) for name in names]
    for name, base in zip(names, bases, strict=True):
        if not base.is_file():
            there = [os.path.relpath(path, folder) for path in sorted(base.parent.glob("*.y*ml"))]
            nearest = nearest_name(name, there)
            advice = f"; did you mean {nearest}?" if nearest else ""
            raise InputError(f"{file}: {BASE}: {base} is no file{advice}")
        if _mapping(base) is None:
            raise InputError(f"{file}: {BASE}: {base} holds no YAML mapping of options")
    return bases


def _shown(path: Path) -> Path:
    """The path as messages show it: without detours, from the working directory where it lies below."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _mapping(file: Path) -> dict[str, Any] | None:
    """Content of a YAML file, which may be empty; None if there is no such file, or it holds something else."""
    if file.suffix not in SUFFIXES or not os.path.isfile(file):
        return None
    return _parsed(file.read_bytes())


@lru_cache(maxsize=64)  # a sweep asks for the bases of a few files thousands of times
def _parsed(text: bytes) -> dict[str, Any] | None:
    """A YAML mapping, which nobody may change: others are given the same."""
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return {} if content is None else content if isinstance(content, dict) else None


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A mapping with another one on top."""
    is_other_class = "class_path" in own and "class_path" in base and _class_name(own) != _class_name(base)
    merged = {} if is_other_class else dict(base)
    for key in sorted(own, key=lambda key: str(key).endswith("+")):  # a list, before what is appended to it
        value, list_key = own[key], str(key).removesuffix("+")
        if key != list_key:
            at = list_key if list_key in merged else key
            merged[at] = [*_as_list(merged.get(at)), *_as_list(value)]
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = _merged(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
            merged.pop(f"{key}+", None)
    return merged


def _class_name(mapping: dict[str, Any]) -> str:
    return str(mapping["class_path"]).rpartition(".")[2]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
