"""Caches embeddings of media, so that a build that stopped goes on where it was."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from lightning_ss2a.files import make_folder, write_whole

VERSION = 2
"""Goes up when the preparation of media or their views change; older entries are then not found any more."""


class EmbeddingCache:
    """A folder with one ``.npy`` file for each encoded media file.

    Args:
        folder: made if need be.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder, "embeddings")

    def path(self, content: str, encoder: str, views: int, seed: int) -> Path:
        """Names the file of the embeddings of a medium.

        Args:
            content: sha256 of the media file.
            encoder: the encoder's name.
            views: number of views.
            seed: of the views.
        """
        description = json.dumps([VERSION, content, encoder, views, seed])
        return self.folder / f"{hashlib.sha256(description.encode()).hexdigest()}.npy"

    def contains(self, path: Path, shape: tuple[int, int]) -> bool:
        """Tells whether good embeddings of this shape are there; damaged ones are as good as none."""
        return self.find(path, shape) is not None

    def find(self, path: Path, shape: tuple[int, int] | None) -> np.ndarray | None:
        """Reads good embeddings of this shape, or of any two-dimensional one (None), float32; None: there are none."""
        if not path.exists():
            return None
        try:
            file = io.BytesIO(path.read_bytes())
            embeddings = np.load(file, allow_pickle=False)
            fits = embeddings.ndim == 2 if shape is None else embeddings.shape == shape
            whole = file.read(1) == b"" and fits and embeddings.dtype == np.float32
            return embeddings if whole and np.isfinite(embeddings).all() else None
        except Exception:  # numpy raises what its parser of headers does: SyntaxError, UnicodeError, TokenError, ...
            return None

    def store(self, path: Path, embeddings: np.ndarray) -> None:
        """Stores embeddings [views, width] under a path that :meth:`path` gave.

        Raises:
            OSError: the file cannot be written: no fault of the medium, so that nobody may leave it out for that.
        """
        content = io.BytesIO()  # numpy would write past our file, and not say why it cannot
        np.save(content, embeddings, allow_pickle=False)
        write_whole(path, content.getvalue())
