"""Settings and parameter names in words."""

from collections.abc import Iterable, Mapping
from typing import Any


def setting_text(value: Any) -> str:
    """Writes the value of a parameter as a user would: four significant digits, null, true, false."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def point_text(point: Mapping[str, Any]) -> str:
    """Writes a point in one line: ``learning_rate 0.001, dropout 0.3``."""
    short = short_names(point)
    return ", ".join(f"{short[name]} {setting_text(value)}" for name, value in point.items())


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Shortens each dotted name to its last words: as few as tell it from the others."""
    names = list(dict.fromkeys(names))
    return {name: _shortest(name, [other for other in names if other != name]) for name in names}


def _shortest(name: str, others: list[str]) -> str:
    words = name.split(".")
    for count in range(1, len(words)):
        short = ".".join(words[-count:])
        if not any(other == short or other.endswith(f".{short}") for other in others):
            return short
    return name
