"""Files that are whole or not there, and folders that one process writes at a time."""

import contextlib
import os
import weakref
from pathlib import Path

from lightning_ss2a.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None


def write_whole(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write a file under a temporary name beside it, then rename it, so that nobody ever sees half of it.

    Args:
        path: the file; its folder must be there. What was there before is replaced.
        content: bytes, or text that is written as UTF-8.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


class FolderLock:
    """Held until it is released, or the process ends in whatever way; file systems without locks are not locked.

    Args:
        folder: an existing folder; nothing is written into it.

    Raises:
        InputError: another holds it.
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
            raise InputError(f"{folder}: another build writes there; wait for it, or choose another folder") from None
        except OSError:  # a file system without locks
            self.release()

    def release(self) -> None:
        """Let others write; more than once does no harm."""
        self._free()


def _free(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked process may hold the descriptor, too
    os.close(descriptor)
