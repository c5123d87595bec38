"""The search space: which configuration paths a sweep varies, and over what."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from lightning_ss2a.errors import InputError

if TYPE_CHECKING:
    import optuna

Point = dict[str, Any]
"""Value of each active parameter; of choices that are no plain values, their label."""

MAX_GRID = 100_000


@dataclass(frozen=True)
class Parameter:
    """What one parameter is drawn from: a range (``low``, ``high``), ``choices``, or named ``settings``.

    Args:
        low: least value of a range.
        high: greatest value of a range, included.
        step: distance between values of a range; a grid needs it for floats.
        log: draw a range's values evenly by their logarithm; excludes ``step``, for floats.
        type: ``int`` or ``float``; left out, a range is of whole numbers if all its numbers are.
        choices: values, of any type that the configuration takes there (numbers, texts, lists, null).
        settings: names of settings, each of several configuration paths at once: ``{small: {model.width: 64, ...}}``.
            The parameter's own name is then free to choose.
        when: other parameters and the value (or list of values) at which this one is active; without it, always.
    """

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    type: Literal["int", "float"] | None = None
    choices: list[Any] | None = None
    settings: dict[str, dict[str, Any]] | None = None
    when: dict[str, Any] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a range is one of whole numbers."""
        given = [number for number in (self.low, self.high, self.step) if number is not None]
        return self.type == "int" or (self.type is None and all(isinstance(number, int) for number in given))

    @property
    def options(self) -> dict[Any, Any] | None:
        """Choices or settings by what Optuna stores of them: themselves, or a text; None: a range."""
        if self.settings is not None:
            return dict(self.settings)
        return None if self.choices is None else {label(choice): choice for choice in self.choices}


def label(choice: Any) -> bool | int | float | str | None:
    """What a choice is called: itself, or the text of a list or mapping."""
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
        for name, parameter in self.parameters.items():
            _check(name, parameter)
            self._check_condition(name, parameter)
        for point in self.probes():
            self._check_paths(point)

    @property
    def names(self) -> list[str]:
        """Names of all parameters."""
        return list(self.parameters)

    def is_active(self, name: str, point: Point) -> bool:
        """Whether a parameter counts, given the values of those before it."""
        when = self.parameters[name].when or {}
        return all(other in point and point[other] in _labels(wanted) for other, wanted in when.items())

    def suggest(self, trial: "optuna.Trial") -> Point:
        """Let the study's sampler choose a point, or what was queued be taken."""
        point: Point = {}
        for name, parameter in self.parameters.items():
            if self.is_active(name, point):
                point[name] = _suggest(trial, name, parameter)
        return point

    def grid(self) -> list[Point]:
        """All points, the last parameter varying fastest; inactive parameters are left out.

        Raises:
            InputError: a range of floats without ``step``, or too many points.
        """
        points: list[Point] = [{}]
        for name, parameter in self.parameters.items():
            values = list(_values(name, parameter))
            points = [
                {**point, name: value} if self.is_active(name, point) else point
                for point in points
                for value in (values if self.is_active(name, point) else [None])
            ]
            if len(points) > MAX_GRID:
                raise InputError(f"parameters: the grid has more than {MAX_GRID} points; take fewer, or sampler=random")
        return points

    def probes(self) -> list[Point]:
        """Few points that together have every choice, both ends of every range, and every parameter at least once."""
        wanted: list[Point] = [{}]
        for name, parameter in self.parameters.items():
            for value in _ends(parameter):
                wanted.append(self._point_with({name: value}))
        complete = [self._completed(point) for point in wanted]
        return [point for number, point in enumerate(complete) if point not in complete[:number]]

    def assignments(self, point: Point) -> dict[str, Any]:
        """Value of each configuration path at a point."""
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
        """All configuration paths that some point sets."""
        settings = (p.settings for p in self.parameters.values() if p.settings is not None)
        plain = {name for name, parameter in self.parameters.items() if parameter.settings is None}
        return plain | {path for setting in settings for paths in setting.values() for path in paths}

    def checked_point(self, values: Mapping[str, Any], where: str) -> Point:
        """A point that a user wrote, with labels for choices that are no plain values.

        Args:
            values: of some parameters.
            where: it stands, for the message.

        Raises:
            InputError: an unknown parameter, or a value outside of its range.
        """
        for name, value in values.items():
            if name not in self.parameters:
                raise InputError(f"{where}: {name} is no parameter of this sweep; {nearest(name, self.names)}")
            parameter = self.parameters[name]
            if parameter.options is not None:
                if label(value) not in parameter.options:
                    known = ", ".join(map(str, parameter.options))
                    raise InputError(f"{where}: {name} is {value}, needs one of {known}")
            elif not isinstance(value, (int, float)) or not parameter.low <= value <= parameter.high:
                raise InputError(f"{where}: {name} is {value}, needs {parameter.low} to {parameter.high}")
            elif parameter.is_whole and not float(value).is_integer():
                raise InputError(f"{where}: {name} is {value}, needs a whole number")
        return {name: label(value) for name, value in values.items()}

    def _check_condition(self, name: str, parameter: Parameter) -> None:
        for other, wanted in (parameter.when or {}).items():
            before = self.names[: self.names.index(name)]
            if other not in before:
                raise InputError(f"parameters.{name}.when: {other} is no parameter before it; {nearest(other, before)}")
            options = self.parameters[other].options
            for value in _labels(wanted):
                if options is not None and value not in options:
                    known = ", ".join(map(str, options))
                    raise InputError(f"parameters.{name}.when: {other} is never {value}; it is one of {known}")

    def _check_paths(self, point: Point) -> None:
        """The trial would show two values, and have one."""
        owners: dict[str, str] = {}
        for name, value in point.items():
            for path in self.assignments({name: value}):
                if owners.setdefault(path, name) != name:
                    raise InputError(f"parameters.{name}: {path} is set by {owners[path]}, too")

    def _point_with(self, wanted: Point) -> Point:
        """Values of the parameters that make those wanted active."""
        point = dict(wanted)
        for name in reversed(self.names):
            if name in point:
                for other, values in (self.parameters[name].when or {}).items():
                    point.setdefault(other, _labels(values)[0])
        return point

    def _completed(self, wanted: Point) -> Point:
        """A point with the values wanted, the first value of every other active parameter."""
        point: Point = {}
        for name, parameter in self.parameters.items():
            if self.is_active(name, point):
                point[name] = wanted.get(name, _ends(parameter)[0])
        return point


def arguments(assignments: Mapping[str, Any]) -> list[str]:
    """Command-line arguments that set configuration paths."""
    return [f"--{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in assignments.items()]


def nearest(name: str, known: Sequence[str]) -> str:
    """What to say of a wrong name."""
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"


def _labels(wanted: Any) -> list[Any]:
    return [label(value) for value in (wanted if isinstance(wanted, list) else [wanted])]


def _check(name: str, parameter: Parameter) -> None:
    where = f"parameters.{name}"
    kinds = [parameter.choices is not None, parameter.settings is not None, parameter.low is not None]
    if sum(kinds) != 1 or (parameter.low is None) != (parameter.high is None):
        raise InputError(f"{where}: needs either low and high, or choices, or settings")
    options = parameter.options
    if options is None:
        _check_range(where, parameter)
    elif not options:
        raise InputError(f"{where}: the list of choices is empty")
    elif parameter.choices is not None and len(options) != len(parameter.choices):
        raise InputError(f"{where}: two choices are the same")
    elif parameter.step is not None or parameter.log:
        raise InputError(f"{where}: step and log belong to a range (low, high)")


def _check_range(where: str, parameter: Parameter) -> None:
    low, high, step = parameter.low, parameter.high, parameter.step
    if not low <= high:
        raise InputError(f"{where}: low is {low}, above high, {high}")
    if parameter.is_whole and not all(float(x).is_integer() for x in (low, high, step or 1)):
        raise InputError(f"{where}: type is int, but low, high or step is no whole number")
    if parameter.log and low <= 0:
        raise InputError(f"{where}: a logarithmic range needs low above 0, it is {low}")
    if step is not None and (step <= 0 or parameter.log):
        raise InputError(f"{where}: step needs to be above 0, and log to be false")


def _suggest(trial: "optuna.Trial", name: str, parameter: Parameter) -> Any:
    options = parameter.options
    if options is not None:
        return trial.suggest_categorical(name, list(options))
    if parameter.is_whole:
        return trial.suggest_int(
            name, int(parameter.low), int(parameter.high), step=int(parameter.step or 1), log=parameter.log
        )
    return trial.suggest_float(
        name, float(parameter.low), float(parameter.high), step=parameter.step, log=parameter.log
    )


def _values(name: str, parameter: Parameter) -> Iterator[Any]:
    """Values of a grid."""
    options = parameter.options
    if options is not None:
        yield from options
        return
    step = parameter.step or (1 if parameter.is_whole and not parameter.log else None)
    if step is None:
        raise InputError(f"parameters.{name}: a grid needs choices, or a range with step")
    for number in itertools.count():
        value = parameter.low + number * step
        if value > parameter.high + 1e-9 * step:
            return
        # 0.1 + 2 * 0.1 is 0.30000000000000004; nobody wants to read that in a table.
        yield int(value) if parameter.is_whole else float(f"{value:.12g}")


def _ends(parameter: Parameter) -> list[Any]:
    options = parameter.options
    if options is not None:
        return list(options)
    number = int if parameter.is_whole else float
    return [number(parameter.low), number(parameter.high)]
