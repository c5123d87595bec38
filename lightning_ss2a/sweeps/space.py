"""The search space: which configuration paths a sweep varies, and over what."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lightning_ss2a.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import optuna

Point = dict[str, Any]
"""Value of each active parameter; of choices that are no plain values, their label."""

MAX_GRID = 100_000


@dataclass(frozen=True)
class Parameter:
    """What one parameter is drawn from: a range (``low``, ``high``), ``choices``, or named ``settings``.

    Args:
        low: least value of a range, which is one of whole numbers if ``low``, ``high`` and ``step`` are.
        high: greatest value of a range, included.
        step: distance between values of a range; a grid needs it for floats.
        log: draw a range's values evenly by their logarithm; excludes ``step``.
        choices: values, of any type that the configuration takes there (numbers, texts, lists, null).
        settings: names of settings, each of several configuration paths at once: ``{small: {model.width: 64, ...}}``.
            The parameter's own name is then free to choose.
        when: other parameters and the value (or list of values) at which this one is active; without it, always.
    """

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    choices: list[Any] | None = None
    settings: dict[str, dict[str, Any]] | None = None
    when: dict[str, Any] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a range is one of whole numbers."""
        given = [number for number in (self.low, self.high, self.step) if number is not None]
        return all(isinstance(number, int) for number in given)

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of a range, as ints where it is one of whole numbers."""
        if self.low is None or self.high is None:
            raise ValueError("choices and settings have no bounds")
        return (self.low, self.high) if self.is_whole else (float(self.low), float(self.high))

    @cached_property
    def options(self) -> dict[Any, Any] | None:
        """Choices or settings by what Optuna stores of them: themselves, or a text; None: a range."""
        if self.settings is not None:
            return dict(self.settings)
        return None if self.choices is None else {label(choice): choice for choice in self.choices}

    @cached_property
    def ends(self) -> list[Any]:
        """All options, or both ends of a range."""
        return list(self.bounds if self.options is None else self.options)

    def check(self, where: str) -> None:
        """Refuses what is neither a range nor a list of options.

        Args:
            where: it stands, for the message.

        Raises:
            InputError: says what is wrong.
        """
        kinds = [self.choices is not None, self.settings is not None, self.low is not None]
        options = self.options
        if sum(kinds) != 1 or (self.low is None) != (self.high is None):
            raise InputError(f"{where}: needs either low and high, or choices, or settings")
        if options is None:
            self._check_range(where)
        elif not options:
            raise InputError(f"{where}: the list of choices is empty")
        elif self.choices is not None and len(options) != len(self.choices):
            raise InputError(f"{where}: two choices are the same")
        elif self.step is not None or self.log:
            raise InputError(f"{where}: step and log belong to a range (low, high)")
        else:
            for option in options:
                check_text(str(option), where)

    def _check_range(self, where: str) -> None:
        low, high = self.bounds
        if not all(math.isfinite(number) for number in (low, high, self.step or 0)):
            raise InputError(f"{where}: low, high and step need to be finite; they are {low}, {high} and {self.step}")
        if not low <= high:
            raise InputError(f"{where}: low is {self.low}, above high, {self.high}")
        if self.log and low <= 0:
            raise InputError(f"{where}: a logarithmic range needs low above 0, it is {self.low}")
        if self.step is not None and (self.step <= 0 or self.log):
            raise InputError(f"{where}: step needs to be above 0, and log to be false")

    def check_value(self, value: Any, where: str) -> None:
        """Refuses a value that the parameter cannot have.

        Args:
            value: as a user wrote it.
            where: it stands, for the message.

        Raises:
            InputError: says what it needs.
        """
        if self.options is not None:
            if label(value) not in self.options:
                raise InputError(f"{where} is {value}, needs one of {', '.join(map(str, self.options))}")
        elif not isinstance(value, (int, float)) or not self.bounds[0] <= value <= self.bounds[1]:
            raise InputError(f"{where} is {value}, needs {self.low} to {self.high}")
        elif self.is_whole and not float(value).is_integer():
            raise InputError(f"{where} is {value}, needs a whole number")

    def grid(self, where: str) -> Iterator[Any]:
        """Counts up the values of a grid.

        Raises:
            InputError: a range of floats without ``step``.
        """
        if self.options is not None:
            yield from self.options
            return
        step = self.step or (1 if self.is_whole and not self.log else None)
        if step is None:
            raise InputError(f"{where}: a grid needs choices, or a range with step")
        low, high = self.bounds
        for number in itertools.count():
            value = low + number * step
            if value > high + 1e-9 * step:
                return
            # 0.1 + 2 * 0.1 is 0.30000000000000004; nobody wants to read that in a table.
            yield int(value) if self.is_whole else float(f"{value:.12g}")

    def suggest(self, trial: "optuna.Trial", name: str) -> Any:
        """Lets a study's sampler choose a value."""
        if self.options is not None:
            return trial.suggest_categorical(name, list(self.options))
        low, high = self.bounds
        if self.is_whole:
            return trial.suggest_int(name, int(low), int(high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, low, high, step=self.step, log=self.log)


def label(choice: Any) -> bool | int | float | str | None:
    """Names a choice: itself, or the text of a list or mapping."""
    return choice if choice is None or isinstance(choice, (bool, int, float, str)) else json.dumps(choice)


class SearchSpace:
    """Parameters by configuration path (or by name, where they are settings).

    Args:
        parameters: in the order in which they are drawn: one that another depends on comes first.

    Raises:
        InputError: a parameter that is none, named with what is wrong.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        if not parameters:
            raise InputError("parameters: the search space is empty; name at least one configuration path to vary")
        self.parameters = dict(parameters)
        self.names = list(parameters)
        for place, (name, parameter) in enumerate(self.parameters.items()):
            parameter.check(f"parameters.{name}")
            self._check_condition(name, self.names[:place])
        for point in self.probes():
            self._check_paths(point)

    def is_active(self, name: str, point: Point) -> bool:
        """Whether a parameter counts, given the values of those before it."""
        when = self.parameters[name].when or {}
        return all(other in point and point[other] in _labels(wanted) for other, wanted in when.items())

    def suggest(self, trial: "optuna.Trial") -> Point:
        """Lets the study's sampler choose a point, or what was queued be taken."""
        point: Point = {}
        for name, parameter in self.parameters.items():
            if self.is_active(name, point):
                point[name] = parameter.suggest(trial, name)
        return point

    def grid(self) -> list[Point]:
        """Lists all points, the last parameter varying fastest; inactive parameters are left out.

        Raises:
            InputError: a range of floats without ``step``, or too many points.
        """
        points: list[Point] = [{}]
        for name, parameter in self.parameters.items():
            values = list(itertools.islice(parameter.grid(f"parameters.{name}"), MAX_GRID + 1))
            points = [
                {**point, name: value} if self.is_active(name, point) else point
                for point in points
                for value in (values if self.is_active(name, point) else [None])
            ]
            if len(points) > MAX_GRID:
                raise InputError(f"parameters: the grid has more than {MAX_GRID} points; take fewer, or a sampler")
        return points

    def probes(self) -> list[Point]:
        """Finds few points that together have every choice, both ends of every range, and every parameter."""
        wanted: list[Point] = [{}]
        for name, parameter in self.parameters.items():
            wanted += [self._point_with({name: value}) for value in parameter.ends]
        complete = [self._completed(point) for point in wanted]
        return list({tuple(point.items()): point for point in complete}.values())

    def assignments(self, point: Point) -> dict[str, Any]:
        """Finds the value of each configuration path at a point."""
        found: dict[str, Any] = {}
        for name, value in point.items():
            options = self.parameters[name].options
            if options is None:
                found[name] = value
            elif self.parameters[name].settings is None:
                found[name] = options[value]
            else:
                found |= options[value]
        return found

    def paths(self) -> set[str]:
        """Lists all configuration paths that some point sets."""
        return {path for point in self.probes() for path in self.assignments(point)}

    def checked_point(self, values: Mapping[str, Any], where: str) -> Point:
        """Reads a point that a user wrote, with labels for choices that are no plain values.

        Args:
            values: of some parameters.
            where: it stands, for the message.

        Raises:
            InputError: an unknown parameter, or a value outside of its range.
        """
        for name, value in values.items():
            if name not in self.parameters:
                raise InputError(f"{where}: {name} is no parameter of this sweep; {did_you_mean(name, self.names)}")
            self.parameters[name].check_value(value, f"{where}: {name}")
        return {name: label(value) for name, value in values.items()}

    def _check_condition(self, name: str, before: Sequence[str]) -> None:
        for other, wanted in (self.parameters[name].when or {}).items():
            where = f"parameters.{name}.when: {other}"
            if other not in before:
                raise InputError(f"{where} is no parameter before it; {did_you_mean(other, before)}")
            options = self.parameters[other].options
            for value in _labels(wanted):
                if options is not None and value not in options:
                    raise InputError(f"{where} is never {value}; it is one of {', '.join(map(str, options))}")

    def _check_paths(self, point: Point) -> None:
        """Refuses a path that two parameters set: the trial would show two values, and have one."""
        owners: dict[str, str] = {}
        for name, value in point.items():
            for path in self.assignments({name: value}):
                if owners.setdefault(path, name) != name:
                    raise InputError(f"parameters.{name}: {path} is set by {owners[path]}, too")

    def _point_with(self, wanted: Point) -> Point:
        """Adds the values that make the parameters wanted active."""
        point = dict(wanted)
        for name in reversed(self.names):
            if name in point:
                for other, values in (self.parameters[name].when or {}).items():
                    point.setdefault(other, _labels(values)[0])
        return point

    def _completed(self, wanted: Point) -> Point:
        """Adds the first value of every other active parameter."""
        point: Point = {}
        for name, parameter in self.parameters.items():
            if self.is_active(name, point):
                point[name] = wanted.get(name, parameter.ends[0])
        return point


def arguments(assignments: Mapping[str, Any]) -> list[str]:
    """Writes command-line arguments that set configuration paths."""
    return [f"--{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in assignments.items()]


def check_text(text: str, where: str) -> None:
    """Refuses a text that no table could hold.

    Raises:
        InputError: it is no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: {text!a} cannot be written as UTF-8") from None


def _labels(wanted: Any) -> list[Any]:
    return [label(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
