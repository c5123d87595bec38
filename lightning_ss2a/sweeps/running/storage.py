"""Where a study is kept: SQLite in its folder, Optuna's journal file, or a database server."""

import contextlib
import json
import logging
import os
import re
import sqlite3
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import local_path
from lightning_ss2a.sweeps.running.faults import chain, is_outside

if TYPE_CHECKING:
    import optuna

TRIES = 3
"""Times to look for tables that another process is making."""

CONNECT_SECONDS = 10
"""How long a PostgreSQL server may take to answer."""

SQLITE_WAIT_SECONDS = 60
"""How long a process waits while another writes."""

_SQLITE_OPTIONS: dict[str, Any] = {"timeout": SQLITE_WAIT_SECONDS, "isolation_level": None}


def import_optuna() -> Any:
    """Imports Optuna, with its chatter off.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("sweeps need Optuna: pip install 'lightning-ss2a[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_storage(url: str | None, folder: Path) -> "optuna.storages.BaseStorage":
    """Opens the storage of a study.

    Args:
        url: None: SQLite in ``folder``; a path ending with ``.journal``: Optuna's journal file; else a database's URL.
        folder: of the study; made if need be.

    Raises:
        InputError: it cannot be reached or is none.
    """
    optuna = import_optuna()
    try:
        if (journal := _journal(url)) is not None:
            if not journal.parent.is_dir():
                raise InputError(f"storage: {journal.parent} is no folder; make it first")
            return optuna.storages.JournalStorage(_whole_lines(journal))
        if url is None:
            folder.mkdir(parents=True, exist_ok=True)
        with quietly():
            # What get_storage makes of it remembers trials that have ended, and knows those that others took.
            return optuna.storages.get_storage(_sqlite_file(folder / "study.db") if url is None else _at(url))
    except InputError:
        raise
    except Exception as error:  # of the database's driver, whichever that is
        raise _explained(error, url, folder) from error


@contextlib.contextmanager
def storage_errors_explained(url: str | None, folder: Path) -> Iterator[None]:
    """Turns what a storage raises into one line that says what is so.

    Args:
        url: see :func:`open_storage`.
        folder: of the study.

    Raises:
        InputError: instead of anything that comes out of Optuna's storages: they read what is there as it is, so that
            damage shows as errors of all kinds.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not _comes_from_storage(error):
            raise
        raise _explained(error, url, folder) from error


def _comes_from_storage(error: BaseException) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("optuna.storages") for frame in frames)


def _explained(error: Exception, url: str | None, folder: Path) -> InputError:
    """Says in one line what is wrong with a storage, and what to do."""
    *_, cause = chain(error)  # Optuna's own words are about something else
    reason = " ".join(str(cause).split()).partition("(Background on this error")[0][:300]
    place = f"storage {folder / 'study.db' if url is None else _without_password(url)}"
    # SQLite calls read-only what was removed or renamed under it.
    moved = "readonly database" in reason and url is None and not (folder / "study.db").exists()
    if moved or (isinstance(cause, KeyError) and "Record does not exist" in reason):
        return InputError(f"{place}: the study is no longer there; was it removed?")
    if is_outside(error) or any(words in reason for words in ("disk is full", "readonly database")):
        return InputError(f"{place}: cannot be written: {reason}; mend it, then the same command goes on")
    if "locked" in reason:
        return InputError(f"{place}: {reason} by another process, for {SQLITE_WAIT_SECONDS} s; try again")
    if _is_damage(cause, reason):
        named = isinstance(cause, (LookupError, AssertionError))  # whose text may be a name alone, or nothing
        what = f"{type(cause).__name__} {reason}".strip() if named else reason
        advice = "put a copy of it back, or take another --name and storage"
        return InputError(f"{place}: is damaged{_where(url)}: {what}; {advice}")
    advice = "give a path ending with .journal, or a database's URL such as sqlite:///FILE"
    return InputError(f"{place}: not reachable: {reason}; {advice}")


def _is_damage(cause: BaseException, reason: str) -> bool:
    """Tells whether what a storage holds is wrong, rather than the way to it."""
    from sqlalchemy.exc import SQLAlchemyError  # Optuna needs it

    if any(words in reason for words in ("malformed", "not a database", "no such table", "no such column")):
        return True
    kinds = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
    return isinstance(cause, kinds) and not isinstance(cause, SQLAlchemyError)


def _where(url: str | None) -> str:
    """Names the first line of a journal that is none."""
    journal = _journal(url)
    if journal is None:
        return ""
    with contextlib.suppress(OSError):
        for number, line in enumerate(journal.read_bytes().splitlines(), start=1):
            try:
                json.loads(line)
            except ValueError:
                return f" in line {number}"
    return ""


def few_trials(
    storage: "optuna.storages.BaseStorage", study_id: int, state: "optuna.trial.TrialState"
) -> "list[optuna.trial.FrozenTrial]":
    """Finds the trials of a state, where these are few of many.

    What remembers trials would first read all that have not ended; the database itself finds the few.
    """
    optuna = import_optuna()
    backend = getattr(storage, "_backend", None)
    asked = backend if isinstance(backend, optuna.storages.RDBStorage) else storage
    return asked.get_all_trials(study_id, deepcopy=False, states=(state,))


def _database(url: str, options: Mapping[str, Any]) -> Any:
    """Opens a database; several processes may make its tables at the same time."""
    optuna = import_optuna()
    for _ in range(TRIES):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        except Exception as error:  # of the database's driver, whichever that is
            if "already exists" not in str(error) and "UNIQUE" not in str(error):
                raise
            time.sleep(1)
    return optuna.storages.RDBStorage(url, engine_kwargs=options)


def _journal(url: str | None) -> Path | None:
    """Finds the file of a storage that is a journal."""
    return Path(local_path(url.removeprefix("journal://"))) if url is not None and url.endswith(".journal") else None


def _whole_lines(journal: Path) -> Any:
    """Opens a journal that takes away half a line at its end before it adds to it.

    A full disk leaves one, or a machine that lost power. Optuna would add to it, and nobody could read either again.
    """
    backends = import_optuna().storages.journal

    class Journal(backends.JournalFileBackend):  # type: ignore[name-defined]  # Optuna comes late
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs).encode()
            self._lock.acquire()  # from here on nobody is just writing
            try:
                with open(journal, "r+b", buffering=0) as file:
                    if not _ends_with_a_line(journal):
                        file.truncate(journal.read_bytes().rfind(b"\n") + 1)
                    end = file.seek(0, os.SEEK_END)
                    try:
                        _write_all(file, lines)
                        os.fsync(file.fileno())
                    except BaseException:
                        file.truncate(end)
                        raise
            finally:
                self._lock.release()

    # Absolute: the lock is a link to the file, and Optuna looks through it to see whether its owner is long gone.
    return Journal(str(journal.absolute()))


def _ends_with_a_line(journal: Path) -> bool:
    with open(journal, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 1))
        return file.read(1) in (b"", b"\n")


def _write_all(file: BinaryIO, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]


def _at(url: str) -> Any:
    """Opens a database at a URL; a server that does not answer is given up soon."""
    if url.startswith("sqlite"):
        return _sqlite(url, {"connect_args": _SQLITE_OPTIONS})
    wait = {"connect_timeout": CONNECT_SECONDS} if re.match(r"postgresql(\+psycopg2?)?:", url) else {}
    return _database(url, {"connect_args": wait})


def _sqlite_file(file: Path) -> Any:
    """Opens SQLite by its path; in a URL, ``?`` and braces, as names of folders may have, mean other things."""
    connect = partial(sqlite3.connect, file.absolute(), check_same_thread=False, **_SQLITE_OPTIONS)
    return _sqlite("sqlite:///study.db", {"creator": connect})


def _sqlite(url: str, options: Mapping[str, Any]) -> Any:
    """Opens SQLite so that two processes never take the same trial.

    Optuna reads a trial's state with a lock and then writes it; SQLite has no such locks of rows, and two processes
    would both read that the trial waits. Here each transaction has the file for itself from its beginning.
    """
    from sqlalchemy import event  # Optuna needs it

    storage = _database(url, options)
    event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silences warnings that Optuna's interface may change, which no user can act on."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_password(url: str | None) -> str:
    scheme, separator, rest = str(url).partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{place}" if separator else str(url)
