"""Optuna's parts by the names that a sweep file gives: storage, sampler, pruner."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.space import nearest

if TYPE_CHECKING:
    import optuna

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "grid": "RandomSampler",  # never asked: every point is queued
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
    "nsgaii": "NSGAIISampler",
}
SAME_SEED = ("grid", "qmc")
"""Samplers of which every process of a study needs the same seed: their points make one sequence."""

PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "patient": "PatientPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}
SQLITE_WAIT_SECONDS = 60
"""How long a process waits while another writes."""


def import_optuna() -> Any:
    """Optuna, with its chatter off.

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
    """The storage of a study.

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
            return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        if url is None:
            folder.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{folder / 'study.db'}"
        wait = {"connect_args": {"timeout": SQLITE_WAIT_SECONDS}} if url.startswith("sqlite") else {}
        with quietly():
            # What get_storage makes of it remembers trials that have ended, and knows those that others took.
            return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs=wait))
    except InputError:
        raise
    except Exception as error:  # of the database's driver, whichever that is
        reason = " ".join(str(error).split()).partition("(Background on this error")[0]
        advice = "give a path ending with .journal, or a database's URL such as sqlite:///FILE"
        raise InputError(f"storage {_without_password(url)}: not reachable: {reason[:300]}; {advice}") from error


def build_sampler(sweep: Sweep, seed: int) -> Any:
    """Optuna's sampler that a sweep names.

    Raises:
        InputError: it refuses its options, or needs a package that is not there.
    """
    optuna = import_optuna()
    kind = getattr(optuna.samplers, SAMPLERS[sweep.sampler])
    given = _checked("sampler_options", kind, sweep.sampler_options)
    known = inspect.signature(kind).parameters
    if "constant_liar" in known:  # running trials count as bad ones, or workers would all try the same
        given.setdefault("constant_liar", sweep.workers > 1)
    return _built("sampler_options", kind, ({"seed": seed} if "seed" in known else {}) | given)


def build_pruner(name: str, options: Mapping[str, Any] | None) -> Any:
    """Optuna's pruner of that name.

    Raises:
        InputError: it refuses its options.
    """
    optuna = import_optuna()
    kind = getattr(optuna.pruners, PRUNERS[name])
    given = _checked("pruner_options", kind, options)
    if name == "patient":  # patience of another pruner; by itself, of any
        given = {"wrapped_pruner": None} | given
    return _built("pruner_options", kind, given)


def _checked(option: str, kind: type, options: Mapping[str, Any] | None) -> dict[str, Any]:
    known = [name for name in inspect.signature(kind).parameters if name not in ("args", "kwargs")]
    for name in options or {}:
        if name not in known:
            raise InputError(f"{option}.{name}: {kind.__name__} has no such option; {nearest(name, known)}")
    return dict(options or {})


def _built(option: str, kind: type, given: Mapping[str, Any]) -> Any:
    try:
        with quietly():
            return kind(**given)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"{option}: {kind.__name__}: {' '.join(str(error).split())}") from error


def storage_errors() -> tuple[type[Exception], ...]:
    """What is raised when a storage that was there no longer is."""
    optuna = import_optuna()
    from sqlalchemy.exc import SQLAlchemyError  # Optuna needs it

    return optuna.exceptions.StorageInternalError, SQLAlchemyError


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without warnings that Optuna's interface may change, which no user can act on."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_password(url: str | None) -> str:
    scheme, separator, rest = str(url).partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{place}" if separator else str(url)
