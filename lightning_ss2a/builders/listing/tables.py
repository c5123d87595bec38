"""Reads lists that are CSV files of any columns, and our own lists of pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from string import Formatter
from typing import Any

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.builders.listing.item import Item, ItemReader
from lightning_ss2a.builders.listing.media_files import list_file
from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.data import PAIR_ORIGINS
from lightning_ss2a.errors import InputError

MEDIA = ("picture", "video", "text", "sound")
"""Of these, an item has what its row has cells for."""


class CsvItems(ItemReader):
    """Reads a CSV file with a row for each item.

    Every option but ``file`` and ``columns`` is a template over the columns, such as ``"clips/{id}_{start:06d}.mp4"``;
    a format after a colon ending in ``d`` takes the cell as a whole number. Where a cell that a medium's template needs
    is empty, the row has no such medium.

    Args:
        picture: path of the picture.
        video: path of the video.
        text: what is heard, in words.
        sound: path of the sound; not given, that of the video.
        key: name of the item, its own; default: the path of what is seen, else of the sound.
        name: what is seen and heard; default: the text, or the file's name without suffix.
        class_name: kind of thing; default: the name.
        group: rows of one group stay together; default: only what shares a file does.
        split: part of the data set.
        pair_origin: ``annotated``, ``curated`` or ``translated``; default: ``translated`` for texts, else
            ``annotated``.
        start: seconds of the video or sound at which the item begins; default with ``end`` or ``seconds``: 0.
        end: seconds at which it ends.
        seconds: how long it is; instead of ``end``.
        sources: how many sources it has.
        file: name of the CSV file, if the source is a folder.
        columns: names of the columns, if the first line does not give them.
    """

    def __init__(
        self,
        picture: str | None = None,
        video: str | None = None,
        text: str | None = None,
        sound: str | None = None,
        key: str | None = None,
        name: str | None = None,
        class_name: str | None = None,
        group: str | None = None,
        split: str | None = None,
        pair_origin: str | None = None,
        start: str | None = None,
        end: str | None = None,
        seconds: str | None = None,
        sources: str | None = None,
        file: str = "items.csv",
        columns: list[str] | None = None,
    ) -> None:
        given = {
            "picture": picture, "video": video, "text": text, "sound": sound, "key": key, "name": name,
            "class_name": class_name, "group": group, "split": split, "pair_origin": pair_origin, "start": start,
            "end": end, "seconds": seconds, "sources": sources,
        }  # fmt: skip
        self._templates = {option: _Template(option, text) for option, text in given.items() if text is not None}
        self._file, self._columns = file, columns
        if not any(medium in self._templates for medium in MEDIA):
            raise InputError(f"name a column of at least one of {', '.join(MEDIA)}, such as video: '{{file}}'")
        if end is not None and seconds is not None:
            raise InputError("end and seconds both say where an item ends; name one of them")

    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items; see :meth:`ItemReader.read`."""
        columns = sorted({column for template in self._templates.values() for column in template.columns})
        may_be_empty = [column for column in columns if not self._is_needed(column)]
        path = list_file(source, self._file)
        for place, cells in csv_rows(path, columns, header=self._columns, may_be_empty=may_be_empty):
            yield self._item(place, cells)

    def _is_needed(self, column: str) -> bool:
        """Whether every row must have it: what the key and the only medium are made of."""
        media = [self._templates[medium] for medium in MEDIA if medium in self._templates]
        needed = [*(media if len(media) == 1 else []), *([self._templates["key"]] if "key" in self._templates else [])]
        return any(column in template.columns for template in needed)

    def _item(self, place: str, cells: dict[str, str]) -> Item:
        given = {option: template.fill(cells, place) for option, template in self._templates.items()}
        media = {medium: given[medium] for medium in MEDIA if given.get(medium)}
        if not media:
            raise InputError(f"{place}: the cells of {' and '.join(m for m in MEDIA if m in given)} are empty")
        first = next(iter(media.values()))
        name = given.get("name") or media.get("text") or Path(str(first)).stem
        origin = given.get("pair_origin") or PAIR_ORIGINS[2 if "text" in media else 0]
        return Item(
            place,
            key=given.get("key") or str(media.get("sound", first) if "text" in media else first),
            name=name,
            class_name=given.get("class_name") or name,
            window=_window(given, place),
            group=given.get("group") or None,
            split=given.get("split") or None,
            pair_origin=origin,
            sources=_number(given.get("sources"), "sources", place, int),
            picture=media.get("picture"),
            video=media.get("video"),
            text=media.get("text"),
            sound=media.get("sound"),
        )


class PairItems(ItemReader):
    """Reads our own lists of picture-sound pairs: a CSV file or a folder; see :func:`read_pairs`."""

    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items; see :meth:`ItemReader.read`."""
        for pair in read_pairs(source):
            shared = {field.name: getattr(pair, field.name) for field in fields(pair) if field.name != "image"}
            yield Item(**shared, key=pair.key, picture=pair.image)


class _Template:
    """A text with names of columns in braces.

    Attributes:
        columns: those that it names.
    """

    def __init__(self, option: str, text: str) -> None:
        try:
            self._parts = list(Formatter().parse(text))
        except ValueError as error:
            raise InputError(f"{option}: {text!r} is no template ({error})") from error
        self._option = option
        self.columns: Sequence[str] = [column for _, column, _, _ in self._parts if column is not None]
        if any(not column for column in self.columns):
            raise InputError(f"{option}: {text!r} has braces without the name of a column")

    def fill(self, cells: dict[str, str], place: str) -> str:
        """Fills in the cells of a row; a template with a cell that is empty gives an empty text."""
        if any(not cells[column] for column in self.columns):
            return ""
        return "".join(
            literal + self._formatted(cells, column, spec, place) for literal, column, spec, _ in self._parts
        )

    def _formatted(self, cells: dict[str, str], column: str | None, spec: str | None, place: str) -> str:
        if column is None:
            return ""
        cell: Any = cells[column]
        if spec and spec.endswith("d"):
            cell = _number(cell, column, place, int)
        try:
            return format(cell, spec or "")
        except ValueError as error:
            raise InputError(f"{self._option}: {spec!r} is no format for {column} ({error})") from error


def _window(given: dict[str, str], place: str) -> tuple[float, float] | None:
    start, end, seconds = (_number(given.get(option), option, place, float) for option in ("start", "end", "seconds"))
    if start is None and end is None and seconds is None:
        return None
    if end is None and seconds is None:
        raise InputError(f"{place}: has a start, but neither end nor seconds")
    return (start or 0.0, end if end is not None else (start or 0.0) + seconds)


def _number(text: str | None, what: str, place: str, kind: type) -> Any:
    if not text:
        return None
    try:
        return kind(float(text)) if kind is int and float(text).is_integer() else kind(text)
    except (ValueError, OverflowError):
        raise InputError(f"{place}: {what} {text!r} is no {'whole ' if kind is int else ''}number") from None
