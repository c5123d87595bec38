"""``ss2a references``: what a protocol compares with, out of a data set's media: sounds, pictures, crops, and lists."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from queue import SimpleQueue

from lightning_ss2a import __version__
from lightning_ss2a.builders.listing import Item, Listing, hash_ids
from lightning_ss2a.builders.listing.media_files import SUFFIXES
from lightning_ss2a.builders.rejected import REJECTED, csv_text, rejected_csv
from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.folders import SEVERAL
from lightning_ss2a.evaluation.reference_media import (
    CROPS,
    IMAGES,
    SOUNDS,
    VIDEOS,
    ReferenceRule,
    make_reference,
)
from lightning_ss2a.files import FolderLock, write_whole
from lightning_ss2a.generation.items import safe_key
from lightning_ss2a.generation.own_process import OwnProcess
from lightning_ss2a.perception.encoding import tracked

ITEMS, PAIRS, SINGLE, MULTI = "items.csv", "pairs.csv", "single.csv", "multi.csv"
"""Lists: for ``ss2a generate --items``; for ``ss2a evaluate --pairs``; of these those of one source, and of more."""
ABOUT = "references.json"
_MADE = ".made"
"""What each item's files were made of, a line each; a torn line is none."""
_MEDIA_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


@dataclass(frozen=True)
class ReferenceReport:
    """What became of a list.

    Attributes:
        made: number of items whose files were written.
        kept: of those whose files were there already.
        broken: of those whose media cannot be used.
        missing: of those whose media are not there.
        excluded: of those left out on demand.
        lists: number of items in each csv file.
    """

    made: int
    kept: int
    broken: int
    missing: int
    excluded: int
    lists: Mapping[str, int]

    def __str__(self) -> str:
        left_out = {"broken": self.broken, "missing": self.missing, "excluded": self.excluded}
        said = ", ".join(f"{number:,} {what}" for what, number in left_out.items() if number)
        lists = ", ".join(f"{name} {number:,}" for name, number in self.lists.items())
        kept = f", {self.kept:,} were there" if self.kept else ""
        return f"{self.made:,} items made{kept}{f'; left out: {said}' if said else ''}; lists: {lists}"


def make_references(
    listing: Listing,
    rule: ReferenceRule,
    *,
    provenance: str = "",
    licence: str = "",
    workers: int = 0,
    progress: bool = True,
) -> ReferenceReport:
    """Writes the files of all items, and the lists of those whose media can be used.

    A second call keeps what is whole, and was made of the same media in the same way.

    Args:
        listing: the items, and those whose media are missing.
        rule: how they become files, and where these go.
        provenance: where the media come from, for :data:`ABOUT`.
        licence: of the media, likewise.
        workers: processes that read media; one that a file ends is replaced. 0: this process alone.
        progress: show a progress bar, on a terminal.

    Raises:
        InputError: no item can be used, or two have one name.
        OSError: a file cannot be written.
    """
    names = _names(listing.items)
    for folder in (SOUNDS, IMAGES, CROPS, *((VIDEOS,) if rule.videos else ())):
        (rule.output / folder).mkdir(parents=True, exist_ok=True)
    lock = FolderLock(rule.output)
    try:
        problems, kept = _make_all(names, rule, workers, progress)
        rejected = [(names[name], reason) for name, reason in problems.items()]
        rejected += listing.problems
        rows = ([" ".join(item.files), item.place, item.key, reason] for item, reason in rejected)
        table = write_whole(rule.output / REJECTED, rejected_csv(rows))
        used = {name: item for name, item in names.items() if name not in problems}
        if not used:
            item, reason = rejected[0]
            raise InputError(
                f"none of {len(rejected)} items can be used ({table} names each), the first: {item.place}: {reason}"
            )
        lists = _write_lists(used, rule)
        _write_about(used, rule, {"provenance": provenance, "licence": licence}, lists)
    finally:
        lock.release()
    return ReferenceReport(len(used) - kept, kept, len(problems), len(listing.missing), len(listing.excluded), lists)


def file_name(key: str) -> str:
    """Names the files of an item by its key, as ``ss2a generate`` does; a medium's own suffix is left away.

    Example:
        >>> file_name("_0TBp3ZPXBc_000364"), file_name("hammering/3yXCtpvjz6E_6.5_9.5.mp4")
        ('_0TBp3ZPXBc_000364', 'hammering_3yXCtpvjz6E_6.5_9.5')
    """
    path = PurePosixPath(key)
    return safe_key(str(path.with_suffix("")) if path.suffix.lower() in _MEDIA_SUFFIXES else key)


def _names(items: Sequence[Item]) -> dict[str, Item]:
    names: dict[str, Item] = {}
    for item in items:
        other = names.setdefault(file_name(item.key), item)
        if other is not item:
            raise InputError(
                f"{item.place}: its files would have the same name as those of {other.place}, {file_name(item.key)!r}; "
                "give them other keys"
            )
    return names


def _make_all(
    names: Mapping[str, Item], rule: ReferenceRule, workers: int, progress: bool
) -> tuple[dict[str, str], int]:
    """Makes what is not there; gives why items cannot be used, by name, and the number of those that were there."""
    made, problems = _Made(rule.output / _MADE), {}
    digests = {name: rule.digest(item) for name, item in names.items()}
    missing = [
        name
        for name, item in names.items()
        if not made.holds(name, digests[name]) or not all(path.is_file() for path in rule.files(item, name))
    ]
    with _making(names, missing, rule, workers) as results:
        for name, result in tracked([*results.items()], "items" if progress else ""):
            try:
                reason = result.result()
            except InputError as error:  # it has ended the process that read it
                reason = str(error)
            if reason:
                problems[name] = reason
            else:
                made.add(name, digests[name])
    return problems, len(names) - len(missing)


@contextmanager
def _making(
    names: Mapping[str, Item], missing: Sequence[str], rule: ReferenceRule, workers: int
) -> Iterator[dict[str, "Future[str]"]]:
    """Starts to make items, a process each of several threads; what is not begun is not, after an error."""
    count = max(1, min(workers, len(missing)))
    processes = [OwnProcess(workers > 0) for _ in range(count)]
    free: SimpleQueue[OwnProcess] = SimpleQueue()
    for process in processes:
        free.put(process)

    def make(name: str) -> str:
        process = free.get()
        try:
            return process.call(make_reference, names[name], name, rule, name=" ".join(names[name].files))
        finally:
            free.put(process)

    pool = ThreadPoolExecutor(count)
    try:
        yield {name: pool.submit(make, name) for name in missing}
    finally:
        pool.shutdown(cancel_futures=True)
        for process in processes:
            process.close()


class _Made:
    """Remembers what items' files were made of.

    Args:
        path: text file of lines "digest name", of which the last one of a name counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        pairs = (line.partition(" ") for line in lines)
        self._digests = {name: digest for digest, _, name in pairs}

    def holds(self, name: str, digest: str) -> bool:
        """Tells whether an item's files were made of this."""
        return self._digests.get(name) == digest

    def add(self, name: str, digest: str) -> None:
        """Remembers an item."""
        self._digests[name] = digest
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{digest} {name}\n")


def _write_lists(used: Mapping[str, Item], rule: ReferenceRule) -> dict[str, int]:
    """Writes the lists; gives the number of items in each."""
    asked = [_asked(name, item, rule) for name, item in used.items()]
    write_whole(rule.output / ITEMS, csv_text(["key", "image", "text", "video"], asked))
    lists = {PAIRS: [*used]}
    if any(item.sources is not None for item in used.values()):
        lists[SINGLE] = [name for name, item in used.items() if item.sources == 1]
        lists[MULTI] = [name for name, item in used.items() if item.sources is not None and item.sources > 1]
    for file in (SINGLE, MULTI):
        if not lists.get(file):  # neither an empty list nor that of an earlier call
            lists.pop(file, None)
            (rule.output / file).unlink(missing_ok=True)
    header = ["name", "image", "text", "class", "group", "sources"]
    for file, names in lists.items():
        write_whole(rule.output / file, csv_text(header, [_pair(name, used[name], rule) for name in names]))
    return {file: len(names) for file, names in lists.items()}


def _asked(name: str, item: Item, rule: ReferenceRule) -> list[str]:
    """Asks for the sound of an item: of its video, if that is wanted, else of its picture."""
    video = rule.video(item, name)
    image = rule.image(name) if video is None and item.seen != "text" else None
    text = (item.text or "").replace(SEVERAL, ",")  # which would be several sources
    return [name, _inside(image, rule), text, _inside(video, rule)]


def _pair(name: str, item: Item, rule: ReferenceRule) -> list[str]:
    """Tells what an item's sound is compared with: its annotated sources, if there are any, else its picture."""
    images = [rule.crop(name, number) for number, _ in enumerate(item.boxes or (), start=1)]
    if not images and item.seen != "text":
        images = [rule.image(name)]
    sources = "" if item.sources is None else str(item.sources)
    shown = SEVERAL.join(_inside(image, rule) for image in images)
    return [name, shown, item.text or "", item.class_name, item.group or "", sources]


def _inside(path: Path | None, rule: ReferenceRule) -> str:
    return "" if path is None else path.relative_to(rule.output).as_posix()


def _write_about(
    used: Mapping[str, Item], rule: ReferenceRule, origin: Mapping[str, str], lists: Mapping[str, int]
) -> None:
    """Writes down what the files are, and of what."""
    about = {
        "program": f"lightning_ss2a {__version__}",
        **origin,
        "decoder": rule.video_reader.decoder,
        "sample_rate": rule.sample_rate or "each sound's own",
        "lists": lists,
        "used_ids": f"sha256 {hash_ids(item.key for item in used.values())}",
    }
    write_whole(rule.output / ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
