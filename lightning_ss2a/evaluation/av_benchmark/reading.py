"""Reads av-benchmark's caches as if their sounds had been heard here."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.av_benchmark.layout import FILES, OTHER_FILES, Features, Part, features_of
from lightning_ss2a.evaluation.hearing import Ear, HeardFiles
from lightning_ss2a.perception.encoders.torch_files import read_content


def holds_caches(folder: Path) -> bool:
    """Tells whether a folder has a file of av-benchmark's."""
    return any((folder / name).is_file() for name in (*FILES, *OTHER_FILES))


class CacheFolder:
    """av-benchmark's caches of a folder of sounds, which need not be there.

    Args:
        name: what messages call it.
        root: the folder.

    Attributes:
        files: by name of the sound a path that stands for it: there is no such file.
        identities: by name of a file, its name and the first digits of its sha256.

    Raises:
        InputError: a file cannot be read, or there is none that can be used.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self._entries = {file: _read_entries(root / file) for file in FILES if (root / file).is_file()}
        if not self._entries:
            raise InputError(f"{name}: {root} has none of av-benchmark's files that are read: {', '.join(FILES)}")
        names = dict.fromkeys(sound for entries in self._entries.values() for sound in entries)
        self.files = {sound: root / sound for sound in sorted(names)}

    @property
    def identities(self) -> dict[str, str]:
        """Names each file that is read, with the first digits of its sha256."""
        digests = {file: hashlib.sha256((self.root / file).read_bytes()).hexdigest() for file in self._entries}
        return {file: f"av-benchmark/{file}@{digest[:12]}" for file, digest in digests.items()}

    def find(self, reference: str) -> Path | None:
        """Finds a sound by its name, with or without suffix; None: it is not there."""
        return self.files.get(reference) or self.files.get(str(Path(reference).with_suffix("")))

    def has(self, ear: Ear) -> bool:
        """Tells whether it has what an ear keeps."""
        features = features_of(ear.encoder)
        return features is not None and all(part.file in self._entries for part in features.parts)

    def take(self, ears: Mapping[str, Ear], heard: HeardFiles) -> dict[Path, str]:
        """Adds what it has of all its sounds to what was heard.

        Args:
            ears: by name; those that it does not have get nothing.
            heard: what was heard, changed in place; sounds whose entry is not finite are among its problems.

        Returns:
            Why a sound has not all that the others have.

        Raises:
            InputError: an entry is not what it should be; names the file and the sound.
        """
        lacking: dict[Path, str] = {}
        contents = {path: hashlib.sha256() for path in self.files.values()}
        for name, ear in ears.items():
            if not self.has(ear):
                continue
            for sound, path in self.files.items():
                missing = self._missing(ear, sound)
                if missing:
                    lacking[path] = f"is missing in {self.root / missing}"
                    continue
                rows = self._rows(ear, sound)
                contents[path].update(rows.tobytes())
                if not np.isfinite(rows).all():
                    heard.refuse(path, f"{self._place(ear)}: {sound} holds NaN or infinity")
                elif path not in heard.problems:
                    heard.rows[name][path] = rows
        heard.content.update(
            {path: digest.hexdigest() for path, digest in contents.items() if path not in heard.problems}
        )
        return lacking

    def _missing(self, ear: Ear, sound: str) -> str:
        """Names the file that has no entry of a sound; empty: all have one."""
        return next((part.file for part in _features(ear).parts if sound not in self._entries[part.file]), "")

    def _rows(self, ear: Ear, sound: str) -> np.ndarray:
        """Gives what an ear would keep of a sound: float32 [rows, numbers]."""
        features = _features(ear)
        tensors = [self._tensor(part, sound, 2 if features.frames else 1) for part in features.parts]
        if not features.frames:
            rows = torch.cat(tensors)[None].numpy()
        else:
            rows = (tensors[0] if ear.frames else tensors[0].mean(0, keepdim=True)).numpy()
        if not ear.gives(rows):
            found = f"{rows.shape[1]} numbers" if len(rows) else "no frames"
            raise InputError(f"{self._place(ear)}: {sound} has {found}, {_part(ear)} needs {ear.numbers} numbers")
        return rows

    def _tensor(self, part: Part, sound: str, dimensions: int) -> Tensor:
        entry = self._entries[part.file][sound]
        if part.key:
            entry = entry.get(part.key) if isinstance(entry, Mapping) else None
        if not isinstance(entry, Tensor) or entry.ndim != dimensions or not entry.is_floating_point():
            where = f"{sound}.{part.key}" if part.key else sound
            raise InputError(f"{self.root / part.file}: {where} needs a tensor of {dimensions} dimension(s) of floats")
        return entry.float()

    def _place(self, ear: Ear) -> str:
        """Names the files of an ear."""
        return " and ".join(str(self.root / file) for file in dict.fromkeys(part.file for part in _features(ear).parts))


def _features(ear: Ear) -> Features:
    features = features_of(ear.encoder)
    if features is None:
        raise TypeError(f"av-benchmark has no {ear.identity}")
    return features


def _part(ear: Ear) -> str:
    return str(getattr(ear.encoder, "part", ""))


def _read_entries(file: Path) -> Mapping[str, Any]:
    """Reads the entries of a file by the name of the sound; nothing is unpickled."""
    content = read_content(file, "one of av-benchmark's caches")
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{file}: not one of av-benchmark's caches: it needs tensors by the names of sounds")
    return content
