"""One writer at a time in a folder."""

import contextlib
import os
import weakref
from pathlib import Path

from lightning_ss2a.data.errors import ShardError

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None


class FolderLock:
    """Held until it is released, or the process ends in whatever way; file systems without locks are not locked.

    Args:
        folder: an existing folder; nothing is written into it.

    Raises:
        ShardError: another holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._free = lambda: None
        if fcntl is None:
            return
        descriptor = os.open(folder, os.O_RDONLY)
        self._free = weakref.finalize(self, _free, descriptor)
        self._free.atexit = False  # or a forked process would free it at its end
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ShardError(f"{folder}: another build writes there; wait for it, or choose another folder") from None
        except OSError:  # a file system without locks
            self.release()

    def release(self) -> None:
        """Let others write; more than once does no harm."""
        self._free()


def _free(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked process may hold the descriptor, too
    os.close(descriptor)
