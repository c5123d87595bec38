"""Reads VGGSound and VGG-SS: clips of 10 s, cut out of YouTube videos."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.builders.listing.item import Box, Item, ItemReader
from lightning_ss2a.builders.listing.media_files import StemIndex, list_file, read_json
from lightning_ss2a.data import PAIR_ORIGINS
from lightning_ss2a.errors import InputError

CLIP_SECONDS = 10

_NAME = re.compile(r"(?P<video>.{11})_(?P<start>\d+)(_(?P<end>\d+))?(\.\w+)?")


def clip_key(video: str, start: int) -> str:
    """Names a clip as VGGSound's own files do: YouTube id and start in seconds, ``ID_000030``."""
    return f"{video}_{start:06d}"


def parse_clip_name(name: str) -> str:
    """Gives the key of a clip that is named in any of the accepted ways; another name as it is.

    A start alone is in seconds, a start and an end are in seconds if they are less than 1,000 apart, else in
    milliseconds: ``ID_000030``, ``ID_30_40``, ``ID_30000_40000``, with or without a suffix.
    """
    match = _NAME.fullmatch(name)
    if not match:
        return name
    start, end = int(match["start"]), match["end"]
    in_milliseconds = end is not None and int(end) - start >= 1000
    return clip_key(match["video"], start // 1000 if in_milliseconds else start)


class _ClipFiles:
    """Finds the files of clips, anywhere below a folder.

    A clip is a video named ``ID_000030``, ``ID_30``, ``ID_30_40``, ``ID_000030_000040`` or ``ID_30000_40000``; or a
    picture (its central frame) and a sound, both named so; or a whole video of YouTube named ``ID``, out of which the
    clip is cut. The first of these that is there is taken.
    """

    def __init__(self, root: Path) -> None:
        self._index = StemIndex(root)

    def of(self, video: str, start: int) -> dict[str, Any]:
        """Gives the media of a clip as fields of an item; of one that is missing, the name that it should have."""
        end, find = start + CLIP_SECONDS, self._index.find
        names = (
            clip_key(video, start), f"{video}_{start}", f"{video}_{start}_{end}", f"{video}_{start:06d}_{end:06d}",
            f"{video}_{start * 1000}_{end * 1000}",
        )  # fmt: skip
        if clip := find("video", *names):
            return {"video": clip}
        if (picture := find("picture", *names)) and (sound := find("sound", *names)):
            return {"picture": picture, "sound": sound}
        if whole := find("video", video):
            return {"video": whole, "window": (float(start), float(end))}
        return {"video": f"{names[0]}.mp4"}


class VGGSound(ItemReader):
    """Reads VGGSound: ``vggsound.csv`` of the authors, and a folder of clips.

    The file (hche11/VGGSound) has no header; its columns are YouTube id, start in seconds, label, and ``train`` or
    ``test``. A clip lasts 10 s. How clips are named depends on who fetched them; accepted are the names that
    :class:`_ClipFiles` lists, anywhere below the folder. An exclusion list may name clips in any of these ways, too, as
    Synchformer's ``filtered_examples_vggsound`` does (``ID_30000_40000``), or by YouTube id.

    Args:
        file: name of the CSV file, if the source is a folder.
        pair_origin: of its clips: ``curated``, since nobody marked their sources.
    """

    def __init__(self, file: str = "vggsound.csv", pair_origin: str = PAIR_ORIGINS[1]) -> None:
        self._file, self._pair_origin = file, pair_origin

    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items; see :meth:`ItemReader.read`."""
        columns = ("youtube_id", "start_seconds", "label", "split")
        clips = _ClipFiles(root)
        for place, cells in csv_rows(list_file(source, self._file), columns, header=columns):
            video, label, split = cells["youtube_id"], cells["label"], cells["split"]
            if split not in ("train", "test"):
                raise InputError(f"{place}: split {split!r} is not one of train, test")
            if not cells["start_seconds"].isdecimal():
                raise InputError(f"{place}: start_seconds {cells['start_seconds']!r} is no whole number of seconds")
            start = int(cells["start_seconds"])
            yield Item(
                place,
                key=clip_key(video, start),
                name=label,
                class_name=label,
                group=video,
                split=split,
                pair_origin=self._pair_origin,
                **clips.of(video, start),
            )

    def key_of(self, name: str) -> str:
        """Gives the key of a clip that is named in any accepted way."""
        return parse_clip_name(name)


class VGGSoundSource(ItemReader):
    """Reads VGG-SS (VGG-Sound Source): boxes around the sources in the central frames of some VGGSound clips.

    ``vggss.json`` (hche11/Localizing-Visual-Sounds-the-Hard-Way) is a list of ``{"file": "ID_000032", "class": label,
    "bbox": [[left, top, right, bottom], …]}``, corners as parts of the frame. It has 5,158 clips of 5,017 videos in 221
    classes, 4,619 of them with one box (counted). A dozen numbers in it are far outside the frame and some boxes are
    empty: boxes are cut at the frame's edges, and those without an area left out, which leaves two clips without any.

    An item's ``sources`` is the number of its boxes; the two clips without any say nothing of it. Clips are found as
    for :class:`VGGSound`.

    There is no official split. The paper drew 4.5K clips for training and 500 for testing; here ``test_items`` clips
    are drawn with ``seed`` from **all** that are listed, whole YouTube videos at a time. So the split is the same for
    everyone, whatever links are dead; who has fewer files has fewer of both.

    Args:
        file: name of the JSON file, if the source is a folder.
        test_items: how many clips make the split ``test``; the others are ``train``.
        seed: of the split.
    """

    def __init__(self, file: str = "vggss.json", test_items: int = 500, seed: int = 0) -> None:
        if test_items < 0 or seed < 0:
            raise InputError(f"test_items and seed must be at least 0, found {test_items} and {seed}")
        self._file, self._test_items, self._seed = file, test_items, seed

    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items; see :meth:`ItemReader.read`."""
        entries = _entries(list_file(source, self._file))
        clips, test = _ClipFiles(root), self._test([key for _, key, _, _ in entries])
        for place, key, label, boxes in entries:
            video, start = key[:11], int(key[12:])
            yield Item(
                place,
                key=key,
                name=label,
                class_name=label,
                group=video,
                split="test" if key in test else "train",
                boxes=boxes,
                sources=len(boxes) or None,
                **clips.of(video, start),
            )

    def key_of(self, name: str) -> str:
        """Gives the key of a clip that is named in any accepted way."""
        return parse_clip_name(name)

    def _test(self, keys: Sequence[str]) -> set[str]:
        """Draws the clips for testing: videos in a random order, as long as all clips of one still fit."""
        of_video: dict[str, set[str]] = {}
        for key in sorted(keys):
            of_video.setdefault(key[:11], set()).add(key)
        videos = list(of_video.values())
        drawn: set[str] = set()
        for number in np.random.default_rng(self._seed).permutation(len(videos)):
            if len(drawn) + len(videos[number]) <= self._test_items:
                drawn |= videos[number]
        return drawn


def annotated_videos(path: Path) -> list[str]:
    """Lists the YouTube ids of the videos out of which the clips of a ``vggss.json`` are cut.

    Raises:
        InputError: it is no such file.
    """
    return sorted({key[:11] for _, key, _, _ in _entries(path)})


def _entries(path: Path) -> list[tuple[str, str, str, tuple[Box, ...]]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: not a list of clips with file, class and bbox")
    return [_entry(entry, f"{path} entry {number}") for number, entry in enumerate(content, start=1)]


def _entry(entry: object, place: str) -> tuple[str, str, str, tuple[Box, ...]]:
    """Checks an entry of ``vggss.json``: place, key, label, boxes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str) or not isinstance(entry.get("class"), str):
        raise InputError(f"{place}: not a clip with file, class and bbox: {str(entry)[:80]}")
    key = parse_clip_name(entry["file"])
    if not _NAME.fullmatch(entry["file"]):
        raise InputError(f"{place}: file {entry['file']!r} is no name of a clip, such as zpWuikVorYg_000032")
    return place, key, entry["class"], _boxes(entry.get("bbox"), place)


def _boxes(value: object, place: str) -> tuple[Box, ...]:
    try:
        corners = np.asarray(value, np.float64).reshape(-1, 4)
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: bbox is no list of boxes of four numbers ({error})") from error
    if not np.isfinite(corners).all():
        raise InputError(f"{place}: bbox holds numbers that are not finite")
    corners = corners.clip(0, 1)
    with_area = corners[(corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])]
    return tuple((left, top, right, bottom) for left, top, right, bottom in with_area.tolist())
