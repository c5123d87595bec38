"""Reads data sets that are folders of media, with or without lists of their parts."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from lightning_ss2a.builders.listing.item import Item, ItemReader
from lightning_ss2a.builders.listing.media_files import MediaKind, StemIndex, media_in, read_json
from lightning_ss2a.builders.listing.reading import read_names
from lightning_ss2a.data import PAIR_ORIGINS
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import files_below


class FolderItems(ItemReader):
    """Reads a folder of media: each file is an item.

    Layouts that it serves, as public readers of these sets describe them:

    - plain videos: any folder; the sub-folder is the class.
    - AVSync15: ``videos/CLASS/NAME.mp4`` with ``train.txt`` and ``test.txt``, each a list of ``CLASS/NAME.mp4``. Names
      begin with the 11 characters of the YouTube id: ``5Uodeo_Ln84_000014_000024_6.5_9.5_clip-00.mp4``.
    - ImageHear: 101 pictures ``CLASSn.jpg`` in one folder (``bongo1.jpg``), without sounds.

    The key of an item is its path.

    Args:
        kind: of media.
        folder: folder of the media in the data set; default: all of it.
        lists: text files of the paths in each split, in the data set; default: every file in the folder, in no split.
        class_from: what names the class: the sub-folder, or the file's name without the number at its end. Underscores
            become spaces.
        group_pattern: regular expression at the beginning of a file's name; what it matches is the group. Default: no
            groups.
        pair_origin: ``annotated``, ``curated`` or ``translated``.
        sources: how many sources each has, if that is known.
    """

    def __init__(
        self,
        kind: Literal["video", "picture", "sound"] = "video",
        folder: str = "",
        lists: dict[str, str] | None = None,
        class_from: Literal["folder", "name"] = "folder",
        group_pattern: str | None = None,
        pair_origin: str = PAIR_ORIGINS[0],
        sources: int | None = None,
    ) -> None:
        self._kind: MediaKind = kind
        self._folder, self._lists, self._class_from = PurePosixPath(folder), lists, class_from
        self._pair_origin, self._sources = pair_origin, sources
        try:
            self._group = re.compile(group_pattern) if group_pattern else None
        except re.error as error:
            raise InputError(f"group_pattern: {group_pattern!r} is no regular expression ({error})") from error

    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items; see :meth:`ItemReader.read`."""
        if not source.is_dir():
            raise InputError(f"{source}: not a folder")
        if self._lists is None:
            for path in media_in(root / self._folder, self._kind):
                yield self._item(f"{root / self._folder / path}", path, None, root)
            return
        for split, name in self._lists.items():
            for number, line in enumerate(read_names(source / name), start=1):
                yield self._item(f"{source / name} entry {number}", PurePosixPath(line), split, root)

    def _item(self, place: str, path: PurePosixPath, split: str | None, root: Path) -> Item:
        group = self._group.match(path.stem) if self._group else None
        if self._group and not group:
            raise InputError(f"{place}: its name does not begin as group_pattern says, {self._group.pattern!r}")
        item = Item(
            place,
            key=str(path),
            name=path.stem,
            class_name=self._class_name(path, root),
            sound=str(self._folder / path),
            group=group.group() if group else None,
            split=split,
            pair_origin=self._pair_origin,
            sources=self._sources,
        )
        if self._kind == "picture":
            return replace(item, picture=item.sound, sound=None)
        return replace(item, video=item.sound, sound=None) if self._kind == "video" else item

    def _class_name(self, path: PurePosixPath, root: Path) -> str:
        if self._class_from == "folder":
            name = path.parent.name or self._folder.name or root.resolve().name
        else:
            name = re.sub(r"[\d_ -]+$", "", path.stem) or path.stem
        return name.replace("_", " ")


class CaptionItems(ItemReader):
    """Reads folders of sounds with a JSON file of captions beside each, as LAION prepared its text-sound sets.

    Epidemic Sound Effects, BBC Sound Effects, FSD50K and others of LAION-630K, as LAION-AI/audio-dataset describes
    them: ``SPLIT/n.flac`` with ``SPLIT/n.json``, which has ``text`` (a caption, or a list of them; in Epidemic the
    short title comes first, then a made-up sentence), ``tag`` (a list; none in BBC) and ``original_data``. The tars of
    these sets must be unpacked.

    The text of an item is the first caption, its class the first tag (without any, the text), its split the sub-folder,
    and its key the path of the JSON file without suffix.

    Args:
        caption: which caption, counted from 0; where there are fewer, the last one.
    """

    def __init__(self, caption: int = 0) -> None:
        if caption < 0:
            raise InputError(f"caption must be at least 0, found {caption}")
        self._caption = caption

    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items; see :meth:`ItemReader.read`."""
        if not source.is_dir():
            raise InputError(f"{source}: not a folder")
        sounds = {path.with_suffix(""): path for path in media_in(root, "sound")}
        for file in sorted(PurePosixPath(file) for file in files_below(source) if file.endswith(".json")):
            path, stem = source / file, file.with_suffix("")
            content = read_json(path)
            if not isinstance(content, dict) or "text" not in content:
                continue  # sizes.json of unpacked tars, say
            yield self._item(path, stem, content, str(sounds.get(stem, stem.with_name(f"{stem.name}.flac"))))

    def _item(self, path: Path, stem: PurePosixPath, content: dict[str, object], sound: str) -> Item:
        captions = _texts(content["text"], "text", path)
        if not captions:
            raise InputError(f"{path}: text is empty")
        text = captions[min(self._caption, len(captions) - 1)]
        tags = _texts(content.get("tag") or [], "tag", path)
        return Item(
            str(path),
            key=str(stem),
            name=text,
            class_name=tags[0] if tags else text,
            text=text,
            sound=sound,
            split=stem.parent.name or None,
            pair_origin="translated",
        )


class MusicItems(ItemReader):
    """Reads MUSIC and MUSIC-21 (roudimit/MUSIC_dataset): JSON files of the YouTube ids of whole videos.

    ``{"version": 1.0, "videos": {"flute violin": ["8DHG_hVSw1o", …], …}}``: a key of ``videos`` names the instruments,
    with spaces between those of a duet and underscores inside a name. ``MUSIC_solo_videos.json`` has 536 ids in 11
    classes, ``MUSIC21_solo_videos.json`` 1,164 in 21, ``MUSIC_duet_videos.json`` 149 in 9 (counted). Videos are files
    named by their id, anywhere below the folder of the media.

    The key and the group of an item are the id. Which part of a video the paper took it does not say: name one by
    ``window``.

    Args:
        files: the JSON files, in the data set; ids that several of them have come once.
        window: seconds (start, end) of each video; default: all of it.
    """

    def __init__(
        self,
        files: tuple[str, ...] = ("MUSIC21_solo_videos.json", "MUSIC_duet_videos.json"),
        window: tuple[float, float] | None = None,
    ) -> None:
        if not files:
            raise InputError("files must name at least one JSON file")
        self._files, self._window = files, window

    def read(self, source: Path, root: Path) -> Iterator[Item]:
        """Lists the items; see :meth:`ItemReader.read`."""
        index = StemIndex(root)
        for path in [source / name for name in self._files] if source.is_dir() else [source]:
            content = read_json(path)
            videos = content.get("videos") if isinstance(content, dict) else None
            if not isinstance(videos, dict):
                raise InputError(f"{path}: has no mapping 'videos' of instruments to YouTube ids")
            for instruments, ids in videos.items():
                for video in _texts(ids, f"videos: {instruments}", path):
                    yield self._item(path, instruments, video, index.find("video", video) or f"{video}.mp4")

    def _item(self, path: Path, instruments: str, video: str, file: str) -> Item:
        class_name = " and ".join(name.replace("_", " ") for name in instruments.split())
        return Item(
            f"{path} {instruments}: {video}",
            key=video,
            name=class_name,
            class_name=class_name,
            video=file,
            window=self._window,
            group=video,
            sources=len(instruments.split()),
        )


def _texts(value: object, what: str, path: Path) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: {what} is no text or list of texts: {str(value)[:50]!r}")
    return [" ".join(text.split()) for text in texts if text.strip()]
