"""Writes what was made of items, whole or not at all, so that a batch goes on where it was stopped."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_ss2a import __version__
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import WholeFile, unfinished_files, write_whole
from lightning_ss2a.generation.items import FAILED, SCENE_SUFFIX, Item, safe_key
from lightning_ss2a.generation.module import Made
from lightning_ss2a.generation.muxing import mux, muxed_suffix
from lightning_ss2a.generation.own_process import OwnProcess
from lightning_ss2a.generation.scene.perceiving import PerceivedItem
from lightning_ss2a.generation.scene.scene_file import is_changed, read_scene
from lightning_ss2a.generation.scene.source import Source
from lightning_ss2a.generation.sound_files import levelled, wav_bytes
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.tables import csv_text

_TRACK = re.compile(r"(.+)\.track\d{2,}\..*\.wav")
"""Name of a source that is sounded alone: the key of its item, a number, a label."""
_DRAWING = re.compile(r"(.+)\.sources\d*\.png")
"""Name of a picture in which sources are drawn."""


@dataclass(frozen=True)
class Maker:
    """What all sounds of a call are made by.

    Attributes:
        generator: its identity.
        is_retrieval: whether its sounds are recordings that exist.
        sample_rate: of its sounds.
        loudness: in LUFS; None: as the generator has it.
        settings: all else that decides what is made of an item.
        notes: what is good to know, and decides nothing, such as paths of checkpoints.
    """

    generator: str
    is_retrieval: bool
    sample_rate: int
    loudness: float | None
    settings: Mapping[str, Any]
    notes: Mapping[str, Any]

    @property
    def notice(self) -> str:
        """Says in the file itself what it is."""
        if self.is_retrieval:
            return f"Retrieved, not recorded for this: real sounds of a bank, put together by {self.generator}"
        return f"Generated, not recorded: synthetic sound, made by {self.generator}"

    def request(self, item: Item) -> dict[str, Any]:
        """Describes what is asked for so that the same request gives the same sound.

        Raises:
            InputError: a medium cannot be read.
        """
        files = [*item.files, *(_files_in(item.sources_file) if item.sources_file else ())]
        content = {file: sha256_of(Path(file)) for file in files if ".rcc!" not in file}
        entry = {name: value for name, value in asdict(item).items() if name != "place" and value}
        return {"item": entry, "sha256": content, **self.settings}


def refuse_media_as_sounds(items: Sequence[Item], folder: Path, tracks: bool) -> None:
    """Refuses to write sounds over what they are made of: media, scenes, and the media of these.

    Args:
        items: what is asked for.
        folder: of the sounds.
        tracks: each source gets a file, too.

    Raises:
        InputError: names the first file that would be lost.
    """
    written = {
        item.key: [f"{item.key}{end}" for end in (".wav", ".json", *(muxed_suffix(Path(file)) for file in item.videos))]
        for item in items
    }
    _refuse(items, folder, written, _TRACK if tracks else None)


def refuse_media_as_scenes(items: Sequence[Item], folder: Path) -> None:
    """Refuses to save scenes and drawings over what they show, and over scenes that were changed by hand.

    Raises:
        InputError: names the first file that would be lost.
    """
    scenes = {item.key: f"{item.key}{SCENE_SUFFIX}" for item in items}
    _refuse(items, folder, {key: [name] for key, name in scenes.items()}, _DRAWING)
    for path in (folder / name for name in scenes.values()):
        if path.exists() and is_changed(path):
            raise InputError(
                f"{path}: was changed by hand, and would be written over; rename it, or choose another output"
            )


def _refuse(
    items: Sequence[Item], folder: Path, written: Mapping[str, Sequence[str]], numbered: re.Pattern[str] | None
) -> None:
    """Refuses to write over files of items: names by key, and what is numbered, whose group is the key."""
    media = _files_inside(items, folder)
    further = {found[1]: name for name in sorted(media) if numbered and (found := numbered.fullmatch(name))}
    for item in items if media else ():
        if lost := next(filter(media.__contains__, written[item.key]), further.get(item.key)):
            raise InputError(f"{folder / lost}: is a medium, and would be written over; choose another output")


def _files_inside(items: Sequence[Item], folder: Path) -> set[str]:
    """Names the files of items that lie in a folder."""
    inside = os.path.realpath(folder)
    parents: dict[str, bool] = {}
    found = set()
    for file in (file for item in items for file in (*item.files, *_files_of_scene(item))):
        parent, name = os.path.split(file)
        if parent not in parents:
            parents[parent] = os.path.realpath(parent or ".") == inside
        if parents[parent]:
            found.add(name)
    return found


def _files_of_scene(item: Item) -> list[str]:
    try:
        return _files_in(item.sources_file) if item.sources_file else []
    except InputError:  # told of the item later
        return []


def digest_of(request: Mapping[str, Any]) -> str:
    """Computes the sha256 of a request, hexadecimal."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def is_made(folder: Path, item: Item, digest: str) -> bool:
    """Tells whether an item's files are there, whole, and made of the same request."""
    try:
        told = json.loads((folder / f"{item.key}.json").read_bytes())
        if told["digest"] != digest:
            return False
        return all(sha256_of(folder / name) == sha256 for name, sha256 in told["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # InputError is a ValueError
        return False


def write_made(
    folder: Path, made: Made, request: Mapping[str, Any], maker: Maker, process: OwnProcess
) -> dict[str, Any]:
    """Writes the files of an item: the sound, its tracks, the video that it belongs to, and last the JSON.

    Args:
        folder: where.
        made: what the item has become.
        request: what was asked for.
        maker: what it is made by.
        process: copies the pictures of a video.

    Returns:
        what the JSON tells.

    Raises:
        InputError: the sound is silent, or its video cannot be copied.
        OSError: a file cannot be written.
    """
    item = made.item
    waveform, level = levelled(made.waveform, maker.sample_rate, maker.loudness)
    files = {f"{item.key}.wav": _wav(waveform, item.key, maker)}
    told: dict[str, Any] = {"gain_db": level.gain, "peak": level.peak, "loudness_lufs": level.loudness}
    told |= {"note": level.note} if level.note else {}
    tracks: list[dict[str, Any]] = []
    for number, track in enumerate(made.tracks, start=1):
        name = f"{item.key}.track{number:02d}.{safe_key(track.label)}.wav"
        own, own_level = levelled(track.waveform, maker.sample_rate, maker.loudness)
        files[name] = _wav(own, f"{item.key}: {track.label}", maker)
        tracks.append({"file": name, "label": track.label, "gain_db": own_level.gain, "renderings": track.renderings})
    if item.videos:
        video = Path(item.videos[0])
        files[f"{item.key}{muxed_suffix(video)}"] = process.call(
            mux, video, waveform, maker.sample_rate, maker.notice, name=str(video)
        )
    content = {
        "notice": maker.notice,
        "made_by": f"lightning_ss2a {__version__}",
        "digest": digest_of(request),
        "request": dict(request),
        "perceived": described(made.perceived),
        "sound": {
            "sample_rate": maker.sample_rate,
            "seconds": round(len(waveform) / maker.sample_rate, 4),
            **told,
            "renderings": made.renderings,
        },
        "tracks": tracks,
        "notes": dict(maker.notes),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    for name, data in files.items():
        _write(folder / name, data)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    # Names of files may hold bytes that are no UTF-8; JSON takes them as escapes.
    _write(folder / f"{item.key}.json", text.encode(errors="backslashreplace"))
    return content


def described(perceived: PerceivedItem) -> dict[str, Any]:
    """Tells what was perceived, without embeddings."""
    return {
        "sources": [_told(source) for source in perceived.sources],
        "dropped": [_told(source) | {"why": why} for source, why in perceived.dropped],
        "pictures": [{"file": picture.file, "boxes": picture.boxes} for picture in perceived.pictures],
    }


def remove_unfinished(folder: Path, items: Sequence[Item]) -> None:
    """Removes what a call that was killed has left of the files of items; nobody else may be writing them."""
    keys = {item.key for item in items}
    for path, name in unfinished_files(folder):
        parts = name.split(".")
        if name == FAILED or any(".".join(parts[:count]) in keys for count in range(1, len(parts))):
            path.unlink(missing_ok=True)


def write_failed(folder: Path, failed: Sequence[tuple[str, str, str]]) -> None:
    """Writes the table of what nothing was made of, (key, place, reason) each; or removes that of an earlier call."""
    if failed:
        write_whole(folder / FAILED, csv_text(["key", "place", "reason"], failed))
    else:
        (folder / FAILED).unlink(missing_ok=True)


def _told(source: Source) -> dict[str, Any]:
    told = {"modality": source.modality, "label": source.label, "weight": source.weight}
    optional = {"file": source.file or None, "box": source.box, "score": source.score}
    return told | {name: value for name, value in optional.items() if value is not None}


def _wav(waveform: Any, title: str, maker: Maker) -> bytes:
    return wav_bytes(waveform, maker.sample_rate, title, maker.notice, f"lightning_ss2a {__version__}")


def _files_in(sources_file: str) -> list[str]:
    scene = read_scene(sources_file)
    return sorted({*(source.file for source in scene.sources if source.file), *(p.file for p in scene.pictures)})


def _write(path: Path, data: bytes) -> None:
    with WholeFile(path, durable=True) as file:
        file.write(data)
