"""Finds the files of pretrained models: at a path, or in the hub's cache, which is filled when the hub can be reached.

Models load when they are first used, so that a stack of them can be made, described and checked for missing files in no
time: see :class:`ModelCard` and :func:`check_weights`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.files import to_path
from lightning_ss2a.perception.identity import sha256_of
from lightning_ss2a.perception.packages import media_package


@dataclass(frozen=True)
class WeightsStatus:
    """Where the files of a model are looked for, and which are there.

    Attributes:
        where: a path, or the repository on the hub.
        names: what is looked for, relative to the folder.
        found: those that are there, in the order of ``names``.
        missing: names of those that are not.
        problem: one line that says which file goes where; empty: all are there, or the hub is going to be asked.
    """

    where: str
    names: tuple[str, ...]
    found: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""

    @property
    def present(self) -> bool:
        """Whether every file is there."""
        return not self.missing

    def sha256(self) -> str | None:
        """Computes the sha256 of the files, see :func:`~lightning_ss2a.perception.identity.sha256_of`; None: missing.

        It reads them from beginning to end.

        Raises:
            InputError: a file cannot be read.
        """
        return sha256_of(*self.found) if self.present else None

    @property
    def location(self) -> Path:
        """The file where one is looked for; the folder that holds them where several are.

        Raises:
            InputError: some are missing.
        """
        if self.missing:
            raise InputError(self.problem or f"{self.where} has no {', '.join(self.missing)}")
        first = self.found[0]
        return first if len(self.names) == 1 else first.parents[len(PurePosixPath(self.names[0]).parts) - 1]


@dataclass(frozen=True)
class ModelCard:
    """What a part of a stack is, told without loading it.

    Attributes:
        part: such as ``image encoder``; with an underscore, the option that configures it.
        model: package and architecture, as in its identity.
        licence: of the weights, and of the package where that one binds, too.
        weights: where its files are looked for, and whether they are there.
        note: what it is and is not good for.
        fault: what else is wrong, in one line, such as a file of labels that holds none; empty: nothing.
    """

    part: str
    model: str
    licence: str
    weights: WeightsStatus = field(repr=False)
    note: str = ""
    fault: str = ""

    @property
    def problem(self) -> str:
        """All that stands in its way, in one line; empty: nothing."""
        return "; ".join(filter(None, (self.weights.problem, self.fault)))


@runtime_checkable
class Described(Protocol):
    """A part that can be described without being loaded; its ``identity``, too, needs no more than the files."""

    def describe(self) -> ModelCard:
        """Says what it is and where its files are looked for; loads and downloads nothing."""


@runtime_checkable
class Loadable(Protocol):
    """A part that loads its network when it is first used, and can be told to do so earlier."""

    def load(self) -> None:
        """Loads what it runs with.

        Raises:
            InputError: a package is missing, or a file is missing, damaged or not what it should be.
        """


def load_models(models: Iterable[object]) -> None:
    """Loads models before they are given anything, so that no medium is blamed for what is wrong with a model.

    Raises:
        InputError: see :meth:`Loadable.load`.
    """
    for model in models:
        if isinstance(model, Loadable):
            model.load()


def files_at(path: str | None, files: Sequence[str]) -> tuple[str, ...]:
    """Names what to look for: the file that a path names, or looks as if it named; else a folder's or the hub's files.

    Raises:
        InputError: the path is a URL.
    """
    if path is None:
        return tuple(files)
    place = to_path(path)
    return (place.name,) if place.is_file() or (place.suffix and not place.is_dir()) else tuple(files)


def find_weights(part: str, path: str | None, repository: str, files: Sequence[str]) -> WeightsStatus:
    """Looks for the files of a model, without loading or downloading any.

    Args:
        part: whose they are, such as ``image encoder``: the start of messages, and with an underscore its option.
        path: the folder that holds them, or the file itself, by any name, where ``files`` names one; None: the hub's.
        repository: on the hub, ``OWNER/NAME``; empty: the hub has none, so that a path is needed.
        files: names relative to the folder or the repository, such as ``prior/config.json``; at least one.

    Raises:
        InputError: the path is a URL, or the repository's name none.
    """
    names = tuple(files)
    if path is not None:
        return _find_at_path(part, to_path(path), names)
    if not repository:
        problem = f"{part}: {', '.join(names)} is not on the hub; {_option(part)} must say where it is"
        return WeightsStatus(_option(part), names, missing=names, problem=problem)
    return _find_in_cache(part, repository, names)


def obtain_weights(part: str, path: str | None, repository: str, files: Sequence[str]) -> WeightsStatus:
    """Finds the files of a model, downloading those of the hub that are not in its cache.

    What is in the cache is used as it is: the hub is not asked whether it has a newer one.

    Args:
        part: see :func:`find_weights`, as the others.
        path: a file or folder; None: the hub's.
        repository: on the hub.
        files: names of the files.

    Returns:
        where they are; none is missing.

    Raises:
        InputError: a file is missing, and cannot be downloaded (the hub is offline or lacks it); says where it goes.
    """
    status = find_weights(part, path, repository, files)
    if status.missing and not status.problem:
        _download(part, repository, status.names)
        status = find_weights(part, path, repository, files)
    if status.missing:
        raise InputError(status.problem or f"{part}: {status.where} has no {', '.join(status.missing)}")
    return status


def joined(first: WeightsStatus, *others: WeightsStatus) -> WeightsStatus:
    """Tells of files of several places as one, where a part needs them all; it has no one location."""
    every = (first, *others)
    return WeightsStatus(
        where=", ".join(status.where for status in every),
        names=tuple(name for status in every for name in status.names),
        found=tuple(file for status in every for file in status.found),
        missing=tuple(name for status in every for name in status.missing),
        problem="; ".join(status.problem for status in every if status.problem),
    )


def check_weights(cards: Iterable[ModelCard]) -> None:
    """Checks that the files of all models are there or can be asked of the hub, before any work begins.

    Raises:
        InputError: some are missing, or not what they should be; names all of them.
    """
    problems = list(dict.fromkeys(card.problem for card in cards if card.problem))
    if problems:
        raise InputError("; ".join(problems))


def _option(part: str) -> str:
    return f"{part.replace(' ', '_')}.path"


def _find_at_path(part: str, path: Path, names: tuple[str, ...]) -> WeightsStatus:
    if path.is_file() and len(names) == 1:
        return WeightsStatus(str(path), names, found=(path,))
    missing = tuple(name for name in names if not (path / name).is_file())
    found = tuple(path / name for name in names if name not in missing)
    if not missing:
        return WeightsStatus(str(path), names, found)
    wanted = ("the file or " if len(names) == 1 else "") + f"a folder that holds {', '.join(names)}"
    if path.is_dir():
        fault = f"{path} lacks {', '.join(missing)}"
    else:
        fault = f"{path} is a file" if path.exists() else f"{path} does not exist"
    problem = f"{part}: {fault}; {_option(part)} must name {wanted}"
    return WeightsStatus(str(path), names, found, missing, problem)


def _find_in_cache(part: str, repository: str, names: tuple[str, ...]) -> WeightsStatus:
    hub, constants = (
        media_package("huggingface_hub", extra="paper"),
        media_package("huggingface_hub.constants", extra="paper"),
    )
    try:
        cached = {name: hub.try_to_load_from_cache(repository, name) for name in names}
    except ValueError as error:  # not OWNER/NAME
        raise InputError(f"{part}: hub repository {repository!r}: {one_line(error)}") from error
    found = tuple(Path(file) for file in cached.values() if isinstance(file, str))  # else None, or "known to be absent"
    missing = tuple(name for name, file in cached.items() if not isinstance(file, str))
    problem = ""
    if missing and constants.is_offline_mode():
        problem = (
            f"{part}: {', '.join(missing)} of hub repository {repository} not in the cache {constants.HF_HUB_CACHE}, "
            f"and the hub is offline (HF_HUB_OFFLINE=1); download it there, or give {_option(part)}"
        )
    return WeightsStatus(f"hub {repository}", names, found, missing, problem)


def _download(part: str, repository: str, names: tuple[str, ...]) -> None:
    hub = media_package("huggingface_hub", extra="paper")
    try:
        hub.snapshot_download(repository, allow_patterns=list(names))
    except Exception as error:  # the hub's errors and those of its HTTP client have no common class
        raise InputError(
            f"{part}: {', '.join(names)} of hub repository {repository} cannot be downloaded ({one_line(error)}); "
            f"give {_option(part)}"
        ) from error
