"""What a sweep file says."""

import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning_ss2a.config_files import with_bases
from lightning_ss2a.errors import InputError
from lightning_ss2a.files import to_path
from lightning_ss2a.sweeps.base_files import ConfigFile
from lightning_ss2a.sweeps.records import Direction, Objective
from lightning_ss2a.sweeps.space import Parameter, SearchSpace, check_text
from lightning_ss2a.sweeps.table_layout import Table, check_table

ClassSpec = dict[str, Any] | str
"""A class and its arguments, ``{class_path: ..., init_args: {...}}``; or its name alone."""

Command = Literal["fit", "validate", "test"]

LONGEST_NAME = 200
"""Letters of a folder's name; most file systems take 255 bytes, some less."""

SEED = "seed_everything"
GRID = "grid"
"""In place of a sampler: all combinations."""

NOT_PART_OF_THE_QUESTION = (
    *("name", "trials", "first", "sampler", "pruner", "storage", "folder"),
    *("workers", "gpus_per_worker", "retries"),
    *("max_minutes", "max_trial_minutes", "max_silent_minutes", "table"),
)
"""Options that may change when a sweep goes on: its trials stay comparable."""


@dataclass(frozen=True)
class Base:
    """A configuration that trials start from, by name.

    Args:
        configs: YAML file or files of ``lightning``, relative to the sweep file's folder; later ones win.
        overrides: configuration paths and their values, which win over the files.
        values: texts or numbers for placeholders of the overrides and of a sweep's parameters, such as the sizes that
            ``{deep}`` stands for on this data set.
        needs: files or folders without which no trial can run, and what each is.
    """

    configs: ConfigFile | list[ConfigFile]
    overrides: dict[str, Any] = field(default_factory=dict)
    values: dict[str, str | int | float] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Repeat:
    """One of the runs that make up a trial.

    Args:
        values: configuration paths and their values.
    """

    values: dict[str, Any]

    @property
    def placeholders(self) -> dict[str, str]:
        """``seed``, and the last part of every other path: ``fold`` of ``data.fold``."""
        short = {path: "seed" if path == SEED else path.rpartition(".")[2] for path in self.values}
        return {short[path]: str(value) for path, value in self.values.items()}

    @property
    def label(self) -> str:
        """Names the run's folder: ``seed_0-fold_1``."""
        return "-".join(f"{name}_{re.sub(r'[^A-Za-z0-9.+]', '_', text)}" for name, text in self.placeholders.items())


@dataclass(frozen=True)
class Sweep:
    """A sweep: a question put to many runs of ``lightning``.

    Args:
        name: of the study, and of its folder in ``folder``.
        base: YAML file or files of ``lightning fit`` that every trial starts from (later ones win), relative to the
            sweep file's folder; or a name in ``bases``.
        bases: configurations by name, for sweep files that run on one of several data sets.
        overrides: configuration paths and their values for all trials. ``{seed}`` stands for the repeat's seed,
            ``{fold}`` for its ``data.fold``, ``{NAME}`` for the output of a step of ``prepare``.
        parameters: what to vary: by configuration path, as ``lightning fit --help`` lists them, a range, choices, or
            named settings of several paths. Options of one callback are ``trainer.callbacks.NAME.option``.
        metric: what a run logs and the sweep optimises, such as ``val/ssms``; several give a Pareto front. A run's
            value is its last validation's: the best of many would favour noise.
        direction: ``maximize`` or ``minimize``; one for each metric, or one for all.
        trials: how many trials; None: all points of a grid.
        seeds: runs a trial, with seeds from 0; or a list of seeds. A trial's value is the mean of its runs.
        repeats: more to repeat each trial over: configuration paths and their values, such as
            ``{data.fold: [0, 1, 2, 3, 4]}``; each combination with the seeds is a run.
        first: points to try before those that the sampler chooses, such as the values you would have taken.
        sampler: chooses points: a class of ``optuna.samplers`` with its arguments, ``{class_path: TPESampler,
            init_args: {n_startup_trials: 24}}``, or its name alone; ``grid``: all combinations. Its seed is 0 unless
            given. With several workers its choices also depend on which trial ends first.
        pruner: stops trials that are behind others at the same validation of their first run: a class of
            ``optuna.pruners``, as for ``sampler``. Needs one metric. None: no trial is stopped.
        storage: where the study is kept. None: SQLite in its folder. A path that ends with ``.journal``: Optuna's
            journal file, for several machines with a shared disk. Else the URL of a database, such as
            ``postgresql+psycopg://user@host/name``.
        folder: holds a folder for each study.
        workers: trials at a time on this machine, each with its share of the cores, or as many threads as the variable
            OMP_NUM_THREADS says. The same command on other machines adds theirs.
        gpus_per_worker: GPUs that each worker sees; 0: all workers see all.
        retries: how often a trial whose process died, or ran out of memory, is queued again. Wrong input and numbers
            that are not finite would fail again, and are not.
        max_minutes: no trial is begun after this time; the next call goes on.
        max_trial_minutes: a trial whose runs take longer, all together, is ended, has failed and is not queued again.
        max_silent_minutes: a trial that does no batch for so long is ended, has failed, and is queued again as often as
            ``retries`` says. Loading data counts, and what a run does before its first batch.
        command: what a trial runs: ``fit``, or ``validate`` or ``test`` of a checkpoint (override ``ckpt_path``).
        prepare: steps that trials build on, by name: a command ``lightning fit ...`` (its run folder is the output) or
            ``ss2a ... {output} ...``, run in the working directory. Each runs once for what it depends on, and only if
            a trial or another step names it.
        table: layout of a table of the results, as a paper prints it.

    Raises:
        InputError: options that are missing, wrong or contradict each other.
    """

    name: str = ""
    base: ConfigFile | list[ConfigFile] | None = None
    bases: dict[str, Base] | None = None
    overrides: dict[str, Any] | None = None
    parameters: dict[str, Parameter] | None = None
    metric: str | list[str] = "val/ssms"
    direction: Direction | list[Direction] = "maximize"
    trials: int | None = None
    seeds: int | list[int] = 1
    repeats: dict[str, list[Any]] | None = None
    first: list[dict[str, Any]] | None = None
    sampler: ClassSpec = "TPESampler"
    pruner: ClassSpec | None = None
    storage: str | None = None
    folder: str = "runs/sweeps"
    workers: int = 1
    gpus_per_worker: int = 0
    retries: int = 1
    max_minutes: float | None = None
    max_trial_minutes: float | None = None
    max_silent_minutes: float | None = None
    command: Command = "fit"
    prepare: dict[str, str] | None = None
    table: Table | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(f"name: a sweep needs one, of letters, digits, '_', '.' and '-'; found {self.name!r}")
        if len(self.name) > LONGEST_NAME:
            raise InputError(f"name: is the name of a folder, too: {len(self.name)} letters are above {LONGEST_NAME}")
        check_text(self.folder, "folder")
        space = self.space  # refuses what is no space
        trials = 1 if self.trials is None else self.trials
        counts = (
            {"workers": self.workers, "trials": trials},
            {"gpus_per_worker": self.gpus_per_worker, "retries": self.retries},
        )
        for least, options in zip((1, 0), counts, strict=True):
            for option, value in options.items():
                if value < least:
                    raise InputError(f"{option} is {value}, needs at least {least}")
        if self.trials is None and self.sampler != GRID:
            raise InputError(f"trials is missing: sampler {class_name(self.sampler)} has no end; say how many")
        for option in ("max_minutes", "max_trial_minutes", "max_silent_minutes"):
            minutes = getattr(self, option)
            if minutes is not None and not 0 < minutes < math.inf:
                raise InputError(f"{option} is {minutes}, needs a time above 0")
        self._check_objectives()
        self._check_paths(space)
        for number, point in enumerate(self.first or []):
            space.checked_point(point, f"first[{number}]")
        if self.table is not None:
            check_table(self.table, space)

    # ---------------------------------------------------------------- what it means

    @cached_property
    def space(self) -> SearchSpace:
        """The search space."""
        return SearchSpace(self.parameters or {})

    @property
    def root(self) -> Path:
        """The study's folder."""
        return to_path(self.folder) / self.name

    @property
    def objectives(self) -> list[Objective]:
        """What is optimised."""
        metrics = [self.metric] if isinstance(self.metric, str) else self.metric
        directions = [self.direction] * len(metrics) if isinstance(self.direction, str) else self.direction
        return [Objective(m, d == "maximize") for m, d in zip(metrics, directions, strict=True)]

    @property
    def all_repeats(self) -> list[Repeat]:
        """The runs of a trial; the last path varies fastest."""
        seeds = list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds
        values = {SEED: seeds} | (self.repeats or {})
        return [Repeat(dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*values.values())]

    @property
    def chosen_base(self) -> Base:
        """The configuration that trials start from."""
        if isinstance(self.base, str) and self.base in (self.bases or {}):
            return (self.bases or {})[self.base]
        return Base(self.base or [])

    def config_files(self) -> list[Path]:
        """Finds the YAML files of the base.

        Raises:
            InputError: one is missing, or something else that the base needs.
        """
        base = self.chosen_base
        key = f"bases.{self.base}.configs" if base in (self.bases or {}).values() else "base"
        for path, what in base.needs.items():
            if not Path(path).exists():
                raise InputError(f"{path} is not there: {what}")
        configs = [ConfigFile(config) for config in _listed(base.configs)]
        if not any(configs):
            raise InputError("base is missing: name a YAML file of lightning fit, such as configs/manifold.yaml")
        for config in configs:
            config.check(key, list(self.bases or {}))
        return [config.path for config in configs]

    def all_overrides(self) -> dict[str, Any]:
        """Overrides of the base and of the sweep, the latter win; placeholders are still in them."""
        return {**self.chosen_base.overrides, **(self.overrides or {})}

    def question(self) -> dict[str, str]:
        """Says what makes trials comparable, each as a text: a study goes on only if all are as they were."""
        texts = {name: str(getattr(self, name)) for name in self.__dataclass_fields__}
        for name in (*NOT_PART_OF_THE_QUESTION, "base", "bases"):
            del texts[name]
        contents = [file.read_bytes() for config in self.config_files() for file in with_bases(config)]
        texts["base"] = hashlib.sha256(b"\0".join(contents)).hexdigest()
        return texts | {"overrides": str(self.all_overrides()), "values": str(self.chosen_base.values)}

    # ---------------------------------------------------------------- checks

    def _check_objectives(self) -> None:
        metrics = _listed(self.metric)
        if not metrics or len(set(metrics)) < len(metrics):
            raise InputError(f"metric: needs one or several different names, found {metrics}")
        if not isinstance(self.direction, str) and len(self.direction) != len(metrics):
            raise InputError(f"direction: {len(metrics)} metrics need as many directions, found {self.direction}")
        if self.pruner is not None and len(metrics) > 1:
            raise InputError(f"pruner: {class_name(self.pruner)} needs one metric, there are {len(metrics)}")
        if self.pruner is not None and self.command != "fit":
            raise InputError(f"pruner: only training can be stopped early, command is {self.command}")

    def _check_paths(self, space: SearchSpace) -> None:
        repeats = self.all_repeats
        if not repeats:
            raise InputError("seeds, repeats: no run is left of a trial; name at least one value each")
        if len({repeat.label for repeat in repeats}) < len(repeats):
            raise InputError("seeds, repeats: two runs of a trial are the same")
        for repeat in repeats:
            if len(repeat.label) > LONGEST_NAME:
                raise InputError(
                    f"seeds, repeats: a run's folder is named by its values, which are {len(repeat.label)} letters, "
                    f"above {LONGEST_NAME}: {repeat.label[:60]}..."
                )
        repeated, varied, overridden = repeats[0].values, space.paths(), self.overrides or {}
        for path in repeated:
            if path in varied:
                raise InputError(f"{path} is both a parameter and repeated over; choose one")
        for path in sorted(overridden):
            if path in varied:
                raise InputError(f"overrides: {path} is a parameter; choose one")
            if path in repeated:
                raise InputError(f"overrides: {path} has no effect, it is repeated over (seeds, repeats)")
        for name in self.prepare or {}:
            if name in (*repeats[0].placeholders, "output"):
                raise InputError(f"prepare.{name}: the name is taken, choose another")


def class_name(spec: ClassSpec) -> str:
    """Names the class of a sampler or a pruner, without its package."""
    return str(spec if isinstance(spec, str) else spec.get("class_path")).rpartition(".")[2]


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
