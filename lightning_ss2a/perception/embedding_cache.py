"""Embeddings of media that were encoded before, so that a build that stopped goes on where it was."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

VERSION = 1
"""Goes up when the preparation of media or their views change; older entries are then not found any more."""


class EmbeddingCache:
    """A folder with one ``.npy`` file for each encoded media file.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, content: str, encoder: str, views: int, seed: int) -> Path:
        """File of the embeddings of a medium.

        Args:
            content: sha256 of the media file.
            encoder: the encoder's name.
            views: number of views.
            seed: of the views.
        """
        description = json.dumps([VERSION, content, encoder, views, seed])
        return self.folder / f"{hashlib.sha256(description.encode()).hexdigest()}.npy"

    def keep(self, path: Path, embeddings: np.ndarray) -> None:
        """Keep embeddings [views, width] under a path that :meth:`path` gave."""
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, embeddings, allow_pickle=False)
        os.replace(temporary, path)
