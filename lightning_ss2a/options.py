"""Options as frozen dataclasses: checks that name an option in full, and their plain values for files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from lightning_ss2a.errors import InputError


@dataclass(frozen=True)
class OptionCheck:
    """Checks the options of one group; each method takes them by their own names.

    Args:
        group: what the options' names begin with, such as ``model.cycle_mix``; empty: they stand alone.

    Example:
        >>> OptionCheck("model.cycle_mix").at_least(1, iterations=0)
        Traceback (most recent call last):
        ...
        lightning_ss2a.errors.InputError: model.cycle_mix.iterations must be at least 1, found 0
    """

    group: str = ""

    def at_least(self, least: float, **options: float | None) -> None:
        """Raises InputError for a number that is not finite or too small; None passes."""
        for name, value in options.items():
            if value is not None and not least <= value < math.inf:
                raise InputError(f"{self._full(name)} must be at least {least}, found {value}")

    def within(self, least: float, most: float, **options: float | None) -> None:
        """Raise InputError for a number outside [least, most]; None passes."""
        for name, value in options.items():
            if value is not None and not least <= value <= most:
                raise InputError(f"{self._full(name)} must be in [{least}, {most}], found {value}")

    def probability(self, **options: float) -> None:
        """Raises InputError for a number outside [0, 1)."""
        for name, value in options.items():
            if not 0 <= value < 1:
                raise InputError(f"{self._full(name)} must be in [0, 1), found {value}")

    def widths(self, **options: Sequence[int]) -> None:
        """Raises InputError for a list of layer widths that is empty or holds one below 1."""
        for name, value in options.items():
            if not value:
                raise InputError(f"{self._full(name)} must name at least one layer")
            if min(value) < 1:
                raise InputError(f"{self._full(name)} must be at least 1, found {min(value)}")

    def one_of(self, choices: Sequence[str], **options: str) -> None:
        """Raises InputError for a text that is not among the choices."""
        for name, value in options.items():
            if value not in choices:
                raise InputError(f"{self._full(name)} must be one of {', '.join(choices)}, found {value!r}")

    def _full(self, name: str) -> str:
        return f"{self.group}.{name}" if self.group else name


def plain(value: Any) -> Any:
    """Returns the same value of dicts, lists, numbers and texts only, which ``torch.load(weights_only=True)`` reads."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def dotted(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Lists names and values of nested plain options: ``{"a": {"b": 1}}`` gives ``("a.b", 1)``."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
