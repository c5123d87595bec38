"""Arguments of the runs that make up a trial."""

import json
from pathlib import Path
from typing import Any

from lightning_ss2a.sweeps.definition import GRID, Repeat, Sweep
from lightning_ss2a.sweeps.prepare import Preparation, Step, fill
from lightning_ss2a.sweeps.space import Point, arguments

QUIET = "--trainer.enable_progress_bar=false"


class Runs:
    """The runs of a sweep.

    Args:
        sweep: what the file says.

    Raises:
        InputError: a placeholder that stands for nothing, a step that is none, or a base that is not there.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.space = sweep, sweep.space
        self.repeats = sweep.all_repeats
        self.preparation = Preparation(sweep.prepare or {}, sweep.root.parent / "prepared")
        self._configs, self._overrides = sweep.config_files(), sweep.all_overrides()
        self.options({}, self.repeats[0])  # every placeholder stands for something

    def points(self) -> list[Point]:
        """Lists the point of each trial, in order; what it leaves out is the sampler's choice.

        Raises:
            InputError: there is no grid of this space.
        """
        sweep = self.sweep
        if sweep.sampler == GRID:
            return self.space.grid()[: sweep.trials]
        first = [self.space.checked_point(point, f"first[{number}]") for number, point in enumerate(sweep.first or [])]
        trials = sweep.trials or 0  # only a grid goes without
        return [*first, *({} for _ in range(trials - len(first)))][:trials]

    def options(self, point: Point, repeat: Repeat) -> list[str]:
        """Writes arguments of ``lightning`` for a point and a repeat, without the subcommand."""
        chosen = {name: str(value) for name, value in self.sweep.chosen_base.values.items()}
        values = chosen | self.preparation.values(repeat)
        assigned = self._overrides | repeat.values | self.space.assignments(point)
        filled = {path: _filled(value, values, f"overrides.{path}") for path, value in assigned.items()}
        return [*(part for config in self._configs for part in ("-c", str(config))), *arguments(filled)]

    def arguments(self, point: Point, repeat: Repeat, folder: str) -> list[str]:
        """Writes arguments of the run: its output goes to the repeat's folder in the trial's ``folder``."""
        output = output_to(Path(self.sweep.root, folder), repeat.label)
        return [self.sweep.command, *self.options(point, repeat), QUIET, *output]

    def log(self, repeat: Repeat, folder: str) -> str:
        """Names the file for what a run prints."""
        return str(Path(self.sweep.root, folder, repeat.label, "output.log"))

    def steps(self, repeat: Repeat) -> list[Step]:
        """Lists what has to be done before a repeat's runs, in order."""
        points = [self.space.assignments(point) for point in self.space.probes()]
        texts = [str(value) for assigned in (self._overrides, *points) for value in assigned.values()]
        return self.preparation.steps(texts, repeat)


def output_to(folder: Path, name: str) -> list[str]:
    """Writes arguments that send a run's output to ``folder/name``."""
    logger = {"save_dir": str(folder.parent), "name": folder.name, "version": name, "default_hp_metric": False}
    return [
        f"--trainer.logger={json.dumps({'class_path': 'TensorBoardLogger', 'init_args': logger})}",
        f"--trainer.default_root_dir={folder / name}",
    ]


def step_arguments(step: Step) -> tuple[str, ...]:
    """Writes the command of a step; training goes to its output."""
    if step.arguments[0] != "lightning":
        return step.arguments
    return (*step.arguments, QUIET, *output_to(step.output.parent, step.output.name))


def _filled(value: Any, values: dict[str, str], where: str) -> Any:
    if isinstance(value, str):
        return fill(value, values, where)
    if isinstance(value, dict):
        return {name: _filled(part, values, where) for name, part in value.items()}
    return [_filled(part, values, where) for part in value] if isinstance(value, list) else value
