"""How tables and pictures write numbers, spreads, durations and parameter names; and how their files come to be."""

import math
import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MISSING = ""


def number_text(value: float) -> str:
    """A measured number with four significant digits, trailing zeros kept so that a column can be compared."""
    if not math.isfinite(value):
        return str(value)
    exponent = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, 3 - exponent)}f}" if -4 < exponent < 6 else f"{value:.3e}"


def column_digits(spreads: Iterable[float]) -> int | None:
    """Digits after the point for a column of ``mean ± spread``: two significant ones of the median spread.

    Returns:
        None where no spread is finite and above 0, or where digits after the point do not suit its size.
    """
    known = [spread for spread in spreads if math.isfinite(spread) and spread > 0]
    exponent = math.floor(math.log10(statistics.median(known))) if known else math.inf
    return max(0, 1 - exponent) if -6 < exponent < 6 else None


def mean_and_spread(mean: float | None, spread: float = math.nan, digits: int | None = None) -> str:
    """``mean ± spread``; the mean alone where there is no spread, nothing where there is no mean.

    Args:
        mean: of the repeats.
        spread: over them.
        digits: after the point, as ``column_digits`` finds them; None: four significant digits.
    """
    if mean is None or math.isnan(mean):
        return MISSING
    parts = [mean, spread] if math.isfinite(spread) else [mean]
    return " ± ".join(number_text(part) if digits is None else f"{part:.{digits}f}" for part in parts)


def setting_text(value: Any) -> str:
    """The value of a parameter as a user would write it: four significant digits, null, true, false."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def point_text(point: Mapping[str, Any]) -> str:
    """A point in a line: ``learning_rate 0.001, dropout 0.3``."""
    short = short_names(point)
    return ", ".join(f"{short[name]} {setting_text(value)}" for name, value in point.items())


def duration_text(seconds: float | None) -> str:
    """Such as ``45 s``, ``3 min 20 s`` or ``2 h 5 min``; nothing of None."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each dotted name by its last words: as few as tell it from the others."""
    names = list(dict.fromkeys(names))
    return {name: _shortest(name, [other for other in names if other != name]) for name in names}


def replace_file(path: Path, content: str | bytes) -> Path:
    """Write a file so that a reader, or a process killed meanwhile, never leaves or sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)
    return path


def _shortest(name: str, others: list[str]) -> str:
    words = name.split(".")
    for count in range(1, len(words)):
        short = ".".join(words[-count:])
        if not any(other == short or other.endswith(f".{short}") for other in others):
            return short
    return name
