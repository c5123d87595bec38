"""Where a study is kept: SQLite in its folder, Optuna's journal file, or a database server."""

import contextlib
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ss2a.errors import InputError

if TYPE_CHECKING:
    import optuna

TRIES = 3
"""Times to look for tables that another process is making."""

CONNECT_SECONDS = 10
"""How long a PostgreSQL server may take to answer."""

SQLITE_WAIT_SECONDS = 60
"""How long a process waits while another writes."""


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
        if url is not None and url.removeprefix("journal://").endswith(".journal"):
            path = Path(url.removeprefix("journal://"))
            if not path.parent.is_dir():
                raise InputError(f"storage: {path.parent} is no folder; make it first")
            _cut_half_a_line(path)
            return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        if url is None:
            folder.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{folder / 'study.db'}"
        with quietly():
            # What get_storage makes of it remembers trials that have ended, and knows those that others took.
            return optuna.storages.get_storage(_sqlite(url) if url.startswith("sqlite") else _server(url))
    except InputError:
        raise
    except Exception as error:  # of the database's driver, whichever that is
        reason = " ".join(str(error).split()).partition("(Background on this error")[0]
        advice = "give a path ending with .journal, or a database's URL such as sqlite:///FILE"
        raise InputError(f"storage {_without_password(url)}: not reachable: {reason[:300]}; {advice}") from error


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


def _cut_half_a_line(journal: Path) -> None:
    """Takes away what a machine that lost power was writing: Optuna would add to it, and could read neither."""
    if not journal.is_file() or _ends_with_a_line(journal):
        return
    lock = import_optuna().storages.journal.JournalFileSymlinkLock(str(journal))
    lock.acquire()  # from here on nobody is just writing
    try:
        if not _ends_with_a_line(journal):
            os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)
    finally:
        lock.release()


def _ends_with_a_line(journal: Path) -> bool:
    with open(journal, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 1))
        return file.read(1) in (b"", b"\n")


def _server(url: str) -> Any:
    """Opens a database on a server; one that does not answer is given up soon."""
    wait = {"connect_timeout": CONNECT_SECONDS} if re.match(r"postgresql(\+psycopg2?)?:", url) else {}
    return _database(url, {"connect_args": wait})


def _sqlite(url: str) -> Any:
    """Opens SQLite so that two processes never take the same trial.

    Optuna reads a trial's state with a lock and then writes it; SQLite has no such locks of rows, and two processes
    would both read that the trial waits. Here each transaction has the file for itself from its beginning.
    """
    from sqlalchemy import event  # Optuna needs it

    storage = _database(url, {"connect_args": {"timeout": SQLITE_WAIT_SECONDS, "isolation_level": None}})
    event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


def storage_errors() -> tuple[type[Exception], ...]:
    """Lists what is raised when a storage that was there no longer is."""
    optuna = import_optuna()
    from sqlalchemy.exc import SQLAlchemyError  # Optuna needs it

    return optuna.exceptions.StorageInternalError, SQLAlchemyError


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
