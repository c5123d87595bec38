"""Tells paths from URLs, writes files and folders whole or not at all, and locks folders for one process at a time."""

import contextlib
import io
import os
import re
import shutil
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from lightning_ss2a.errors import InputError

if sys.platform != "win32":  # there nothing is locked
    import fcntl


_LOCAL_URL = re.compile(r"(file|local):(//)?")
"""How fsspec marks files of this machine."""

_UNFINISHED = re.compile(r"\.(.+)\.\d+\.tmp")
"""Temporary name of a :class:`WholeFile`: its own, and the process that writes it."""


def is_local(url: str | os.PathLike[str]) -> bool:
    """Tells whether it is a path of this machine's file system, or a ``file://`` URL."""
    path = local_path(url)
    return path != os.fspath(url) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path) or os.path.exists(path)


def local_path(url: str | os.PathLike[str]) -> str:
    """Gives the path that a ``file://`` URL stands for; anything else as it is."""
    path = os.fspath(url)
    marked = _LOCAL_URL.match(path)
    return path[marked.end() :] if marked and not os.path.exists(path) else path


def to_path(url: str | os.PathLike[str]) -> Path:
    """Gives the path that a path or a ``file://`` URL stands for, where only a file of this machine will do.

    Raises:
        InputError: a URL of another kind.
    """
    if not is_local(url):
        raise InputError(f"{os.fspath(url)}: a URL, and here only a path of this machine will do")
    return Path(local_path(url))


def files_below(folder: Path) -> Iterator[str]:
    """Lists the files anywhere below a folder, in order, by paths relative to it with ``/`` between their parts.

    Hidden files and folders are not looked at; links to folders are followed, each folder once.

    Raises:
        InputError: there is no such folder, or one below it cannot be looked into.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    seen = set()
    for path, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(path).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        yield from (prefix + name for name in sorted(files) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    """Raises what ``os.walk`` would pass over, so that no part of a data set is left out in silence."""
    raise InputError(f"{error.filename}: cannot be looked into ({error.strerror})") from error


class WholeFile:
    """A file that is written under a temporary name beside it, and renamed when it is finished.

    So nobody ever sees half of it, and what was there before stays until then. As a context manager it gives the stream
    to write to; it commits at the end of the context, or abandons the file after an error.

    Args:
        path: the file; its folder must be there.
        durable: see the bytes on the disk before the name appears, for files that are never written again.

    Attributes:
        path: as given.
        stream: where the bytes go.

    Raises:
        OSError: the file cannot be opened; whatever goes wrong later, too, names the file.
    """

    def __init__(self, path: str | os.PathLike[str], durable: bool = False) -> None:
        self.path = Path(path)
        self._durable = durable
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with naming(self.path):
            self.stream: BinaryIO = io.BufferedWriter(_Raw(self.path, self._temporary))

    def commit(self) -> None:
        """Closes the file and gives it its name.

        Raises:
            OSError: the disk is full, say; the file is then abandoned.
        """
        try:
            with naming(self.path):
                self.stream.flush()
                if self._durable:
                    os.fsync(self.stream.fileno())
                self.stream.close()
                os.replace(self._temporary, self.path)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Closes and removes the unfinished file; does nothing after :meth:`commit`."""
        with contextlib.suppress(OSError):  # closing flushes
            self.stream.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> BinaryIO:
        return self.stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abandon()


def unfinished_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Lists what a process that was killed has left of files: each with the name that it was to get."""
    for path in folder.glob(".*.tmp"):
        if name := _UNFINISHED.fullmatch(path.name):
            yield path, name[1]


class _Raw(io.FileIO):
    """An unfinished file whose errors (a full disk, a quota, a limit) name what it is to become."""

    def __init__(self, path: Path, temporary: Path) -> None:
        super().__init__(temporary, "wb")
        self._path = path

    def write(self, data: Any, /) -> int:
        with naming(self._path):
            return super().write(data)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lets errors of the file system name a file; those of writing to an open one name none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Writes a file whole or not at all; see :class:`WholeFile`.

    Args:
        path: the file; its folder must be there. What was there before is replaced.
        content: bytes, or text that is written as UTF-8.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written.
    """
    with WholeFile(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


def write_all_whole(contents: Mapping[Path, str]) -> list[Path]:
    """Writes files that belong together: after an error, such as a full disk, all that were there before stay.

    Args:
        contents: text by file, which is written as UTF-8; the folders must be there.

    Returns:
        The files.

    Raises:
        OSError: one cannot be written.
    """
    files: list[WholeFile] = []
    try:
        for path, text in contents.items():
            files.append(WholeFile(path))
            files[-1].stream.write(text.encode())
            files[-1].stream.flush()
        for file in files:
            file.commit()
    except BaseException:
        for file in files:
            file.abandon()
        raise
    return [file.path for file in files]


def make_folder(folder: Path, what: str) -> None:
    """Makes a folder with those above it, unless it is there.

    Args:
        folder: the folder.
        what: it is of, for the message.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be the folder of {what} ({error.strerror}); name another") from error


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside ``path`` to fill, and renames it at the end; after an error it is removed.

    Args:
        path: the folder; it must not exist. Folders above it are made.

    Raises:
        OSError: it cannot be made.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class FolderLock:
    """A lock held until it is released, or the process ends in whatever way; file systems without locks are not locked.

    Args:
        folder: an existing folder; nothing is written into it.

    Raises:
        InputError: another holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._finalizer: weakref.finalize | None = None
        if sys.platform == "win32":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        self._finalizer = weakref.finalize(self, _free, descriptor)
        self._finalizer.atexit = False  # or a forked process would free it at its end
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise InputError(f"{folder}: another build writes there; wait for it, or choose another folder") from None
        except OSError:  # a file system without locks
            self.release()

    def release(self) -> None:
        """Lets others write; more than once does no harm."""
        if self._finalizer is not None:
            self._finalizer()


def _free(descriptor: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked process may hold the descriptor, too
    os.close(descriptor)
