"""Lists what is measured: the items, their files in each folder, and what is missing on either side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.builders.listing.media_files import MediaKind, media_in
from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.av_benchmark.reading import CacheFolder, holds_caches
from lightning_ss2a.files import to_path

REFERENCE = "reference"
TAKEN = (REFERENCE, "images", "videos", "text")
"""Names that no method may have."""
COLUMNS = ("reference", "image", "video", "text", "class", "group", "sources")
"""Of a csv file of items, beside ``name``; all may be left out."""
BREAKDOWNS = ("class", "sources")
"""Columns by whose values scores are told apart, too."""
SEVERAL = ";"
"""Between the pictures of an item's sources."""


@dataclass(frozen=True)
class Item:
    """Something that every method was to sound.

    Attributes:
        name: path of its sound in a method's folder, without suffix.
        files: paths of its reference, pictures and video, by kind of folder; without an entry: by its name.
        text: that describes it; empty: none.
        group: items of one group are drawn together in intervals; empty: it is drawn alone.
        values: by column of :data:`BREAKDOWNS`.
    """

    name: str
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: str = ""
    group: str = ""
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """What is missing or cannot be used.

    Attributes:
        folder: name of the method; or reference, images, videos.
        item: its name.
        reason: one line.
    """

    folder: str
    item: str
    reason: str


class MediaFolder:
    """The media of a folder by path without suffix.

    Args:
        name: what messages call it.
        root: the folder.
        kinds: of media that count.

    Raises:
        InputError: no such folder, nothing in it, or two files with one name.
    """

    def __init__(self, name: str, root: str, *kinds: MediaKind) -> None:
        self.name = name
        self.root = to_path(root)
        self.files: dict[str, Path] = {}
        for path in (path for kind in kinds for path in media_in(self.root, kind)):
            stem = str(path.with_suffix(""))
            if stem in self.files:
                raise InputError(f"{name}: {self.files[stem]} and {self.root / path} have one name; remove one")
            self.files[stem] = self.root / path
        if not self.files:
            raise InputError(f"{name}: {self.root} holds no {' or '.join(kinds)}")

    def find(self, reference: str) -> Path | None:
        """Finds a file by its path, or by that without suffix; None: it is not there."""
        if reference in self.files:
            return self.files[reference]
        path = self.root / reference
        return path if path.is_file() else None


SoundFolder = MediaFolder | CacheFolder
"""Where sounds are, or what av-benchmark heard in them."""


@dataclass(frozen=True)
class Folders:
    """The folders of an evaluation; every side but that of the methods may be missing."""

    methods: dict[str, SoundFolder]
    reference: SoundFolder | None = None
    images: MediaFolder | None = None
    videos: MediaFolder | None = None

    def sides(self) -> list[SoundFolder]:
        """Lists the folders that are there beside those of the methods."""
        return [folder for folder in (self.reference, self.images, self.videos) if folder is not None]


def open_folders(
    generated: Sequence[str], reference: str | None = None, images: str | None = None, videos: str | None = None
) -> Folders:
    """Lists the files of all folders.

    Args:
        generated: folders of the methods' sounds, ``NAME=DIR`` or ``DIR``, whose last part is then the name; a folder
            of sounds, or of videos that have them, or of av-benchmark's caches.
        reference: folder of real sounds, likewise.
        images: folder of pictures.
        videos: folder of videos.

    Raises:
        InputError: see :class:`MediaFolder` and :class:`~.av_benchmark.reading.CacheFolder`; or two methods have one
            name.
    """
    methods: dict[str, SoundFolder] = {}
    for text in generated:
        name, root = method_of(text)
        if name in (*methods, *TAKEN):
            raise InputError(f"generated: the name {name} is taken; name the folder: OTHER_NAME={root}")
        methods[name] = _sounds(name, root)
    if not methods:
        raise InputError("generated: name at least one folder of sounds")
    return Folders(
        methods,
        None if reference is None else _sounds(REFERENCE, reference),
        None if images is None else MediaFolder("images", images, "picture"),
        None if videos is None else MediaFolder("videos", videos, "video"),
    )


def _sounds(name: str, root: str) -> SoundFolder:
    folder = to_path(root)
    return CacheFolder(name, folder) if holds_caches(folder) else MediaFolder(name, root, "sound", "video")


def method_of(text: str) -> tuple[str, str]:
    """Reads ``NAME=DIR`` or ``DIR``.

    Example:
        >>> method_of("V2A-Mapper=out/mapper"), method_of("out/mapper/")
        (('V2A-Mapper', 'out/mapper'), ('mapper', 'out/mapper/'))
    """
    name, mark, root = text.partition("=")
    if mark and name and root and not Path(text).is_dir():
        return name, root
    return Path(text).resolve().name, text


def list_items(folders: Folders, pairs: str | None = None) -> tuple[list[Item], list[Problem]]:
    """Lists the items, in the order of their names or of the csv file, and what has no counterpart.

    Without a csv file the items are the reference's; without a reference those of the pictures, then of the videos,
    then all that any method has.

    Args:
        folders: of the evaluation.
        pairs: csv file with a column ``name`` and those of :data:`COLUMNS`; what it does not list is not measured.

    Returns:
        The items, and files that belong to none; of a csv file, which says itself what counts, no such files.

    Raises:
        InputError: the csv file is wrong, or names files of a folder that is not given.
    """
    if pairs is not None:
        return _items_of_csv(to_path(pairs), folders), []
    sides = folders.sides()
    names = sides[0].files if sides else {name: None for folder in folders.methods.values() for name in folder.files}
    listed = f"of {sides[0].root}" if sides else ""
    problems = [
        Problem(folder.name, name, f"is no item {listed}")
        for folder in (*folders.methods.values(), *sides[1:])
        for name in sorted(folder.files.keys() - names.keys())
    ]
    return [Item(name) for name in sorted(names)], problems


def locate(item: Item, folder: SoundFolder, kind: str) -> list[Path] | None:
    """Finds the files of an item in a folder; None: one is missing.

    Args:
        item: the item.
        folder: where to look.
        kind: column that may name other files: reference, image or video; anything else: the item's own name.
    """
    found = [folder.find(reference) for reference in item.files.get(kind, (item.name,))]
    return None if None in found else [path for path in found if path is not None]


def why_missing(item: Item, folder: SoundFolder, kind: str) -> str:
    """Says which of an item's files :func:`locate` does not find, by name where it is not the item's own."""
    missing = [reference for reference in item.files.get(kind, (item.name,)) if folder.find(reference) is None]
    named = "" if missing == [item.name] else f"{', '.join(missing)} "
    return f"{named}is missing in {folder.root}"


def _items_of_csv(path: Path, folders: Folders) -> list[Item]:
    items: dict[str, Item] = {}
    for place, cells in csv_rows(path, ["name"], COLUMNS, doubts_others=True):
        name = cells["name"]
        if name in items:
            raise InputError(f"{place}: {name} is there twice; each item has one row")
        items[name] = _item_of_row(name, cells, place)
    if not items:
        raise InputError(f"{path}: lists no items")
    _check_columns(path, items.values(), folders)
    return list(items.values())


def _item_of_row(name: str, cells: Mapping[str, str], place: str) -> Item:
    files: dict[str, tuple[str, ...]] = {kind: (cells[kind],) for kind in ("reference", "video") if cells.get(kind)}
    if cells.get("image"):
        files["image"] = tuple(image.strip() for image in cells["image"].split(SEVERAL) if image.strip())
    sources = cells.get("sources", "")
    if sources and not (sources.isdecimal() and int(sources)):
        raise InputError(f"{place}: sources is {sources!r}, needs a whole number from 1")
    values = {column: cells[column] for column in BREAKDOWNS if cells.get(column)}
    return Item(name, files, cells.get("text", ""), cells.get("group", ""), values)


def _check_columns(path: Path, items: Iterable[Item], folders: Folders) -> None:
    """Refuses files that are named, but whose folder is not."""
    given = {"reference": folders.reference, "image": folders.images, "video": folders.videos}
    named = {kind for item in items for kind in item.files}
    for kind in sorted(named):
        if given[kind] is None:
            option = REFERENCE if kind == REFERENCE else f"{kind}s"
            raise InputError(f"{path}: names files in the column {kind}; say with --{option} where they are")
