"""Defines what a sound bank is on disk: real sounds with labels, credits and embeddings.

    sounds.csv              a row a sound: file, label, author, licence, source, group, split
    sounds/*.ogg            mono
    embeddings.safetensors  ``embeddings`` [sounds, views, width], rows as in sounds.csv
    bank.json               format version, audio encoder, sample rate, sha256 of each of these files

``bank.json`` comes last when a bank is written and goes first when it is replaced: without it a folder is no bank.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from lightning_ss2a.builders.csv_rows import csv_rows
from lightning_ss2a.data.format.strict_json import load_json, parse
from lightning_ss2a.data.format.writer import check_output_folder
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import FolderLock, whole_folder, write_whole
from lightning_ss2a.perception.media.files import load_audio
from lightning_ss2a.tables import csv_text

BANK, SOUNDS, EMBEDDINGS, FOLDER = "bank.json", "sounds.csv", "embeddings.safetensors", "sounds"
FORMAT_VERSION = 1
TENSOR = "embeddings"
HOW_TO_BUILD = "build it again (ss2a bank build)"


@dataclass(frozen=True)
class BankSound:
    """A row of ``sounds.csv``; all but file and label may be empty.

    Attributes:
        file: path inside the bank's folder.
        label: what is heard.
        author: who made it.
        licence: under which it may be used.
        source: where it was found, such as the package that holds it.
        group: sounds of one group come from one recording, or belong to one picture.
        split: such as the fold of a data set whose measures must not hear it.
    """

    file: str
    label: str
    author: str = ""
    licence: str = ""
    source: str = ""
    group: str = ""
    split: str = ""


COLUMNS = tuple(column.name for column in fields(BankSound))
REQUIRED = COLUMNS[:2]


@dataclass(frozen=True)
class BankDescription:
    """What ``bank.json`` says.

    Attributes:
        format_version: of this layout.
        audio_encoder: identity of the encoder of all embeddings.
        sample_rate: of all sounds, in hertz.
        sha256: of each file, by its path inside the folder.
    """

    format_version: int
    audio_encoder: str
    sample_rate: int
    sha256: dict[str, str]


@dataclass(frozen=True)
class Bank:
    """A bank that was read; its sounds are read when they are asked for.

    Attributes:
        folder: where it is.
        description: what ``bank.json`` says.
        sounds: its sounds.
        embeddings: float32 [sounds, views, width].
    """

    folder: Path
    description: BankDescription
    sounds: tuple[BankSound, ...]
    embeddings: np.ndarray

    def waveform(self, sound: BankSound) -> np.ndarray:
        """Loads a sound at the bank's rate: float32 [samples].

        Raises:
            InputError: its file is missing, or another than the one that was embedded.
        """
        content = _checked_content(self.folder / sound.file, self.description.sha256[sound.file])
        return load_audio(content, str(self.folder / sound.file), self.description.sample_rate)


def read_bank(folder: Path) -> Bank:
    """Reads a bank, strictly.

    Raises:
        InputError: names file, row and field of what is missing, damaged or does not go together.
    """
    if not (folder / BANK).is_file():
        raise InputError(f"{folder}: not a sound bank (no {BANK}); name the folder of one, or {HOW_TO_BUILD}")
    described = load_json((folder / BANK).read_bytes(), str(folder / BANK))
    version = described.get("format_version") if isinstance(described, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{folder / BANK}: format_version {version!r}, this program reads {FORMAT_VERSION}")
    description = parse(BankDescription, described, str(folder / BANK))
    for name in (SOUNDS, EMBEDDINGS):
        _listed_content(folder, name, description)
    sounds = _read_sounds(folder / SOUNDS, description)
    return Bank(folder, description, sounds, _read_embeddings(folder / EMBEDDINGS, description, len(sounds)))


def check_place(folder: Path, overwrite: bool) -> None:
    """Checks before the work that a bank can be written.

    Raises:
        InputError: the folder holds a bank that may not be replaced, or files that are not a bank's, or cannot be
            written.
    """
    if (folder / BANK).exists():
        if not overwrite:
            raise InputError(f"{folder}: holds a finished bank; choose another folder, or overwrite it")
    elif others := [name for name in (SOUNDS, EMBEDDINGS, FOLDER) if (folder / name).exists()]:
        raise InputError(
            f"{folder / others[0]}: is of no bank of ours and might be replaced; move it, or choose another folder"
        )
    check_output_folder(folder)


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder to write a bank into with :func:`write_bank`; at the end it takes its place.

    What was there before stays until then; of what lies beside a bank nothing is touched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    try:
        with whole_folder(folder / ".writing" / "bank") as temporary:
            yield temporary
        _take_place(folder / ".writing" / "bank", folder)
    finally:
        shutil.rmtree(folder / ".writing", ignore_errors=True)
        lock.release()


def write_bank(
    folder: Path,
    sounds: Sequence[BankSound],
    contents: Mapping[str, bytes],
    embeddings: np.ndarray,
    audio_encoder: str,
    sample_rate: int,
) -> None:
    """Writes the files of a bank into an empty folder.

    Args:
        folder: see :func:`writing`.
        sounds: its sounds.
        contents: the file of each, by its path.
        embeddings: [sounds, views, width], as stored.
        audio_encoder: identity of their encoder.
        sample_rate: of all sounds, in hertz.
    """
    (folder / FOLDER).mkdir()
    table = csv_text(COLUMNS, map(astuple, sounds)).encode()
    files = {**contents, SOUNDS: table, EMBEDDINGS: safetensors.numpy.save({TENSOR: embeddings})}
    for name, content in files.items():
        write_whole(folder / name, content)
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    description = BankDescription(FORMAT_VERSION, audio_encoder, sample_rate, sha256)
    write_whole(folder / BANK, json.dumps(asdict(description), indent=1) + "\n")


def _take_place(built: Path, folder: Path) -> None:
    """Moves a bank that is whole into its place; the old one's files go, those of others stay."""
    if (folder / BANK).exists():
        old = load_json((folder / BANK).read_bytes(), str(folder / BANK))
        (folder / BANK).unlink()
        for name in old.get("sha256", {}) if isinstance(old, dict) else ():
            if name in (SOUNDS, EMBEDDINGS) or _is_sound_file(name):
                (folder / name).unlink(missing_ok=True)
    for file in (built / FOLDER).iterdir():
        (folder / FOLDER).mkdir(exist_ok=True)
        os.replace(file, folder / FOLDER / file.name)
    for name in (SOUNDS, EMBEDDINGS, BANK):
        os.replace(built / name, folder / name)


def _is_sound_file(name: str) -> bool:
    outer, inside, inner = name.partition("/")
    return outer == FOLDER and bool(inside) and inner not in ("", ".", "..") and "/" not in inner and "\\" not in inner


def _read_sounds(path: Path, description: BankDescription) -> tuple[BankSound, ...]:
    sounds = []
    seen: dict[str, str] = {}
    for place, cells in csv_rows(path, REQUIRED, COLUMNS[2:]):
        file = cells["file"]
        if not _is_sound_file(file) or file not in description.sha256:
            raise InputError(f"{place}: {file} is not a file that {BANK} lists below {FOLDER}/; {HOW_TO_BUILD}")
        if not (path.parent / file).is_file():
            raise InputError(f"{place}: {file} is missing; restore it, or {HOW_TO_BUILD}")
        if file in seen:
            raise InputError(f"{place}: {file} is listed in {seen[file]}, too; {HOW_TO_BUILD}")
        seen[file] = place
        sounds.append(BankSound(**cells))
    if not sounds:
        raise InputError(f"{path}: lists no sounds; {HOW_TO_BUILD}")
    return tuple(sounds)


def _read_embeddings(path: Path, description: BankDescription, sounds: int) -> np.ndarray:
    try:
        embeddings = safetensors.numpy.load(path.read_bytes())[TENSOR]
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: holds no tensor {TENSOR!r} ({error}); {HOW_TO_BUILD}") from error
    if embeddings.ndim != 3 or 0 in embeddings.shape or len(embeddings) != sounds:
        raise InputError(
            f"{path}: {TENSOR} is {list(embeddings.shape)}, needs [{sounds} sounds, views, width]; {HOW_TO_BUILD}"
        )
    embeddings = embeddings.astype(np.float32)
    useless = ~np.isfinite(embeddings).all((1, 2)) | ~embeddings.any(2).all(1)
    if useless.any():
        row = int(useless.argmax())
        raise InputError(f"{path} row {row}: {TENSOR} holds zeros only, or numbers not finite; {HOW_TO_BUILD}")
    return embeddings


def _listed_content(folder: Path, name: str, description: BankDescription) -> bytes:
    if name not in description.sha256:
        raise InputError(f"{folder / BANK}: sha256 lacks {name}; {HOW_TO_BUILD}")
    return _checked_content(folder / name, description.sha256[name])


def _checked_content(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore it, or {HOW_TO_BUILD}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path}: another sha256 than {BANK} says; restore the file, or {HOW_TO_BUILD}")
    return content
