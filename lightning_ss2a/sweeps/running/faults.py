"""What is not a trial's fault: the disk that all of them write to, the files that the machine may open."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lightning_ss2a.errors import FULL

OUTSIDE = (
    *FULL,
    *(errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG),
)
"""The system's numbers of such errors."""

PROBE_BYTES = 2**20


def is_outside(error: BaseException) -> bool:
    """Tells whether an error, or one that led to it, says that the disk is full or the like; libraries use words."""
    words = [os.strerror(number) for number in OUTSIDE]
    return any(
        getattr(link, "errno", None) in OUTSIDE or any(word in str(link) for word in words) for link in chain(error)
    )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Lists an error and those that led to it, the first last."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def why_unwritable(folder: Path) -> str | None:
    """Finds out why a folder takes no file: one that died of a full disk could not say so. None: it does."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return None
