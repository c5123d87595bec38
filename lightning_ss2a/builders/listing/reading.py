"""Reads the list of a data set: its items, those whose media are missing, those left out on demand."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning_ss2a.builders.listing.item import Item, ItemReader, Listing
from lightning_ss2a.builders.listing.media_files import FilesThere
from lightning_ss2a.builders.listing.vggsound import annotated_videos
from lightning_ss2a.errors import InputError, did_you_mean
from lightning_ss2a.files import to_path

logger = logging.getLogger(__name__)


def list_items(
    source: str,
    reader: ItemReader,
    *,
    media_root: str | None = None,
    exclude: str | None = None,
    splits: Sequence[str] | None = None,
    sources: Literal["all", "single", "multi"] = "all",
) -> Listing:
    """Lists the items of a data set.

    Args:
        source: the list's file, or the folder of the data set.
        reader: reads lists of its layout; see ``configs/datasets/``.
        media_root: folder that relative paths start from; default: the list's own.
        exclude: text file of items to leave out, one a line: their keys, other names that the reader knows (see its
            ``key_of``), or their groups. Empty lines and those that begin with ``#`` count for nothing. Or VGG-SS'
            ``vggss.json``: the videos that it annotates, whole.
        splits: parts of the data set to keep, by its authors' names; default: all of it.
        sources: keep items of one annotated source, of several, or all.

    Returns:
        those whose media are there, and those whose media are not.

    Raises:
        InputError: the list or the exclusion list is wrong, or nothing is left of it.
    """
    path = to_path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    root = to_path(media_root) if media_root else path if path.is_dir() else path.parent
    listed, repeated = _once(reader.read(path, root))
    if not listed:
        raise InputError(f"{path}: lists nothing")
    chosen = _of_sources(_of_splits(listed, splits, path), sources, path)
    names = _excluded_names(to_path(exclude)) if exclude else []
    left_out = {reader.key_of(name) for name in names}
    named = {item.key for item in listed if item.key in left_out or item.group in left_out}
    excluded = [item for item in chosen if item.key in named]
    if names and not named:
        logger.warning("%s: names no item of %s; is it a list for another data set?", exclude, source)
    there, gone = FilesThere(root), {item.key for item in excluded}
    kept = [(item, tuple(file for file in item.files if file not in there)) for item in chosen if item.key not in gone]
    return Listing(
        items=tuple(item for item, absent in kept if not absent),
        missing=tuple(item for item, absent in kept if absent),
        absent=tuple(absent for _, absent in kept if absent),
        excluded=tuple(item.key for item in excluded),
        repeated=tuple(repeated),
    )


def _excluded_names(path: Path) -> list[str]:
    return annotated_videos(path) if path.suffix.lower() == ".json" else read_names(path)


def read_names(path: Path) -> list[str]:
    """Reads a text file of names, one a line; empty lines and those that begin with ``#`` count for nothing.

    Raises:
        InputError: it cannot be read as text in UTF-8.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of names ({error})") from error
    return [line for line in lines if line and not line.startswith("#")]


def _once(items: Iterable[Item]) -> tuple[list[Item], list[str]]:
    """Keeps the first of items listed several times over; also gives the places of the others."""
    first: dict[str, Item] = {}
    repeated = []
    for item in items:
        earlier = first.setdefault(item.key, item)
        if earlier is item:
            continue
        if replace(item, place=earlier.place) != earlier:
            raise InputError(
                f"{item.place}: the same key as {earlier.place}, {item.key!r}, with other content; remove one, or give "
                "each item a key of its own"
            )
        repeated.append(item.place)
    return list(first.values()), repeated


def _of_splits(items: Sequence[Item], splits: Sequence[str] | None, path: Path) -> list[Item]:
    if splits is None:
        return list(items)
    known = sorted({item.split for item in items if item.split is not None})
    for split in splits:
        if split not in known:
            raise InputError(f"splits: {path} has no split {split!r}; {did_you_mean(split, known)}")
    return [item for item in items if item.split in splits]


def _of_sources(items: Sequence[Item], sources: str, path: Path) -> Sequence[Item]:
    if sources == "all":
        return items
    if all(item.sources is None for item in items):
        raise InputError(f"sources: {path} does not say how many sources an item has; take all")
    kept = [item for item in items if item.sources is not None and (item.sources == 1) == (sources == "single")]
    if not kept:
        raise InputError(f"sources: {path} lists no item with {sources} sources")
    return kept
