"""``--ckpt_path``: which file it means, and that only a command line names one."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_ss2a.cli.errors import naming_base_files
from lightning_ss2a.config_files import sets_option
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import local_path

NAMES = ("best", "last")
"""Of checkpoints in the newest run that has one."""

RUNS = "runs"
"""Folder for the runs that have no logger to give them one."""


def check_is_given(arguments: Sequence[str], path: str) -> None:
    """Refuse a checkpoint that a configuration file names: a saved one would resume, or measure, another run unasked.

    Args:
        arguments: of the command line.
        path: the checkpoint that the parser found.

    Raises:
        InputError: the command line does not name one.
    """
    if any(argument.partition("=")[0] == "--ckpt_path" for argument in arguments):
        return
    files = [file for file in naming_base_files(arguments) if sets_option(file, "ckpt_path")]
    where = "".join(f"{file}: " for file in files[-1:])
    raise InputError(
        f"{where}ckpt_path does not count in a configuration file; add --ckpt_path {path} to the command, or take it "
        "out of the file"
    )


def find_named(name: str, trainer: Namespace) -> str:
    """Find the checkpoint ``best`` or ``last`` of the newest run that has one, of the name that the logger has.

    Args:
        name: what ``--ckpt_path`` says.
        trainer: its options.

    Raises:
        InputError: there is none.
    """
    folder, version = _folder_of_runs(trainer)
    runs = _newest_first(folder) if version is None else [folder / version]
    for run in runs:
        file = run / "checkpoints" / f"{name}.ckpt"
        if file.is_file():
            return str(file)
    wanted = folder / (version or "version_*") / "checkpoints" / f"{name}.ckpt"
    raise InputError(f"--ckpt_path {name}: there is no {wanted}; name the file")


def has_logger(trainer: Namespace) -> bool:
    """Whether a run has one: Lightning's own where none is named."""
    return trainer.logger not in (False, [])


def folder_without_logger(trainer: Namespace) -> Path:
    """The folder of a new run that has no logger: no run writes over another.

    Args:
        trainer: its options.
    """
    folder = Path(local_path(trainer.default_root_dir or RUNS))
    newest = next(iter(_newest_first(folder)), None)
    return folder / f"version_{0 if newest is None else _number(newest) + 1}"


def _folder_of_runs(trainer: Namespace) -> tuple[Path, str | None]:
    """Where runs of this name are, and the one that the logger names, if it does."""
    if trainer.logger in (None, True):
        return Path(local_path(trainer.default_root_dir or "."), "lightning_logs"), None  # Lightning's choice
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    options: dict[str, Any] = next((dict(x.init_args) for x in loggers if isinstance(x, Namespace)), {})
    if "save_dir" not in options:
        return Path(local_path(trainer.default_root_dir or RUNS)), None
    version = options.get("version")
    folder = Path(local_path(options["save_dir"] or "."), options.get("name") or "")
    return folder, f"version_{version}" if isinstance(version, int) else version


def _newest_first(folder: Path) -> list[Path]:
    runs = [run for run in folder.glob("version_*") if re.fullmatch(r"version_\d+", run.name)]
    return sorted(runs, key=_number, reverse=True)


def _number(run: Path) -> int:
    return int(run.name.removeprefix("version_"))
