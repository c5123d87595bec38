"""Reads and writes ``scene.yaml``: the sources of a scene, to be dropped, reweighted and added to by hand."""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_ss2a.builders.listing import Box
from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.files import to_path, write_whole
from lightning_ss2a.generation.scene.source import Source

HEADER = """\
# What ss2a generate perceived. Change a weight (how loud a source is in proportion to the others; 0 leaves it out),
# remove a source, or add one: {text: ...}, {audio: FILE}, {image: FILE}, with a box or without, each with a weight and,
# but for texts, a label if you like. Paths start from this file's folder. A box is left, top, right, bottom, as parts
# of the picture. "pictures" are seen as a whole, too; what was found in them and is no source any more is painted over
# there.
# ss2a generate --sources_file THIS_FILE
"""
_SEAL = "# Unchanged as long as this is the sha256 of the other lines: "
_OF_SOURCES = ("image", "text", "audio", "label", "weight", "score", "box")
_OF_PICTURES = ("image", "boxes")


@dataclass(frozen=True)
class Picture:
    """A picture that is seen as a whole, beside the sources in it.

    Attributes:
        file: the picture.
        boxes: all that was found in it.
    """

    file: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class SceneFile:
    """What a scene file holds: sources without embeddings, and pictures."""

    sources: tuple[Source, ...]
    pictures: tuple[Picture, ...]


class _Loader(yaml.SafeLoader):
    """Refuses what is given twice, where YAML's own loader takes the last and drops the others in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def write_scene(path: Path, sources: Iterable[Source], pictures: Iterable[Picture]) -> None:
    """Writes a scene; paths are made to start from its folder."""
    folder = path.parent
    content = {
        "pictures": [
            {"image": _relative(each.file, folder), "boxes": [_rounded(box) for box in each.boxes]} for each in pictures
        ],
        "sources": [_entry(source, folder) for source in sources],
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    write_whole(path, f"{HEADER}{_SEAL}{_sha256(HEADER + text)}\n{text}")


def is_changed(path: Path) -> bool:
    """Tells whether a scene was changed after it was written, or was not written by :func:`write_scene`.

    Raises:
        InputError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    seals = [line for line in lines if line.startswith(_SEAL)]
    others = "".join(line for line in lines if not line.startswith(_SEAL))
    return seals != [f"{_SEAL}{_sha256(others)}\n"]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_scene(file: str) -> SceneFile:
    """Reads a scene.

    Raises:
        InputError: there is no such file, or something in it is wrong; names the entry.
    """
    path = to_path(file)
    try:
        content = yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of text, or of days that are none
        raise InputError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    _check_keys(content, ("pictures", "sources"), f"{path}")
    pictures, sources = content.get("pictures") or [], content.get("sources") or []
    for name, entries in (("pictures", pictures), ("sources", sources)):
        if not isinstance(entries, list):
            raise InputError(f"{path}: {name} must be a list, one entry for each")
    return SceneFile(
        tuple(_source(entry, f"{path}: source {number}", path.parent) for number, entry in enumerate(sources, 1)),
        tuple(_picture(entry, f"{path}: picture {number}", path.parent) for number, entry in enumerate(pictures, 1)),
    )


def _entry(source: Source, folder: Path) -> dict[str, Any]:
    if source.modality == "text":
        entry: dict[str, Any] = {"text": source.label}
    else:
        entry = {source.modality: _relative(source.file, folder), "label": source.label}
    entry["weight"] = source.weight
    if source.score is not None:
        entry["score"] = round(source.score, 4)
    if source.box is not None:
        entry["box"] = _rounded(source.box)
    return entry


def _source(entry: Any, place: str, folder: Path) -> Source:
    _check_keys(entry, _OF_SOURCES, place)
    media = [name for name in ("image", "text", "audio") if entry.get(name) is not None]
    if len(media) != 1:
        raise InputError(f"{place}: needs one of image, text and audio, has {' and '.join(media) or 'none'}")
    modality = media[0]
    medium, named = (_text(entry, name, place) for name in (modality, "label"))
    if not medium:
        raise InputError(f"{place}: its {modality} is empty")
    box = None if entry.get("box") is None else _box(entry["box"], place)
    if box is not None and modality != "image":
        raise InputError(f"{place}: a box, and no image that it is in")
    weight, score = (_number(entry, name, place) for name in ("weight", "score"))
    if modality == "text" and named not in ("", medium.strip()):
        raise InputError(f"{place}: has a label, {named!r}; a text is called what it says")
    file = "" if modality == "text" else os.path.join(folder, medium)
    label = medium.strip() if modality == "text" else named or Path(medium).stem
    return Source(modality, label, 1.0 if weight is None else weight, file, box, score)  # type: ignore[arg-type]


def _picture(entry: Any, place: str, folder: Path) -> Picture:
    _check_keys(entry, _OF_PICTURES, place)
    image = _text(entry, "image", place)
    if not image:
        raise InputError(f"{place}: names no image")
    boxes = entry.get("boxes") or []
    if not isinstance(boxes, list):
        raise InputError(f"{place}: boxes must be a list, four numbers for each")
    return Picture(os.path.join(folder, image), tuple(_box(box, place) for box in boxes))


def _box(value: Any, place: str) -> Box:
    try:
        left, top, right, bottom = map(float, value)
    except (TypeError, ValueError):
        raise InputError(f"{place}: box {value!r} is not four numbers") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise InputError(f"{place}: box {value!r} needs left < right and top < bottom, from 0 to 1")
    return left, top, right, bottom


def _text(entry: Mapping[str, Any], name: str, place: str) -> str:
    """Gives a text; an empty one if there is none, or nothing but white space."""
    value = entry.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):  # such as a list, or no, which YAML reads as false
        raise InputError(f"{place}: {name} is {value!r}, needs one text; put it in double quotes")
    return value if value.strip() else ""


def _number(entry: Mapping[str, Any], name: str, place: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise InputError(f"{place}: {name} is {value!r}, needs a number of at least 0")
    return float(value)


def _check_keys(entry: Any, known: Sequence[str], place: str) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{place}: needs {', '.join(known)}, found {entry!r}")
    for key in entry:
        if key not in known:
            raise InputError(f"{place}: {key!r} is nothing that it may have; {did_you_mean(str(key), known)}")


def _relative(file: str, folder: Path) -> str:
    return os.path.relpath(file, folder)


def _rounded(box: Box) -> list[float]:
    return [round(side, 6) for side in box]
