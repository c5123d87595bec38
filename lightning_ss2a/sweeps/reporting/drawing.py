"""What the pictures of a sweep share: figures without pyplot, colours, scales of values and of parameters."""

import io
import math
import statistics
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_ss2a.sweeps.reporting.ranking import Ranked
from lightning_ss2a.sweeps.reporting.text import setting_text
from lightning_ss2a.sweeps.running.records import Objective
from lightning_ss2a.sweeps.space import Parameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN, BEST, FAINT = "#2c7fb8", "#d7301f", "#9a9a9a"


def new_figure(width: float, height: float) -> "Figure":
    """A figure without pyplot, sizes in inches: no global state, no window system.

    The twin in callbacks/figures/drawing.py waits for Lightning to be imported, which who reads a sweep need not.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def as_png(figure: "Figure") -> bytes:
    """The picture's file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def plain_axes(axes: "Axes") -> None:
    """No box around, a faint grid below."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def legible(text: str, width: int = 16, lines: int = 2) -> str:
    """A label in at most so many lines, broken at its underscores and dots where it can be."""
    # textwrap breaks at hyphens only: a space that no label holds stands for "may break here".
    pieces = text.replace("_", "_\x00").replace(".", ".\x00").split("\x00")
    wrapped, line = [], ""
    for piece in (part for long in pieces for part in textwrap.wrap(long, width, drop_whitespace=False)):
        if line and len(line) + len(piece) > width:
            wrapped.append(line)
            line = ""
        line += piece
    wrapped.append(line)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], f"{wrapped[lines - 1][: width - 1]}…"]
    return "\n".join(wrapped).replace("$", r"\$")


def title_of(objective: Objective) -> str:
    """The metric, and which way is better."""
    return f"{objective.metric} ({'more' if objective.maximize else 'less'} is better)".replace("$", r"\$")


def value_range(ranked: Sequence[Ranked], objective: Objective) -> tuple[float, float]:
    """Range of values worth showing, with a margin: all, unless few that went astray would flatten the others.

    Args:
        ranked: at least one trial, best first.
        objective: whose values they are.
    """
    values = [item.value for item in ranked]
    best = values[0]
    distances = sorted(abs(value - best) for value in values)
    usual = distances[math.floor(0.75 * (len(distances) - 1))]
    reach = max((d for d in distances if d <= 6 * usual), default=usual) if usual > 0 else distances[-1]
    spreads = [item.spread for item in ranked if math.isfinite(item.spread) and abs(item.value - best) <= reach]
    margin = 0.06 * reach + (statistics.median(spreads) if spreads else 0.0) or abs(best) * 0.05 or 0.5
    low, high = (best - reach, best) if objective.maximize else (best, best + reach)
    return low - margin, high + margin


def colours(ranked: Sequence[Ranked], objective: Objective, limits: tuple[float, float]) -> tuple[Any, Any]:
    """A colour map and its norm in which the best is darkest, and the worst still seen on white."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, Normalize

    # The palest fifth cannot be seen on white.
    shades = colormaps["YlGnBu"]([0.22 + 0.78 * step / 255 for step in range(256)])
    values = [min(max(item.value, limits[0]), limits[1]) for item in ranked]
    norm = Normalize(min(values), max(values) if max(values) > min(values) else min(values) + 1)
    return ListedColormap(shades if objective.maximize else shades[::-1]), norm


class Scale:
    """Where a parameter's values stand on an axis, from 0 to 1.

    Args:
        parameter: a range or options.
        values: that trials have: a value from outside of the range, narrowed since, widens it.
    """

    def __init__(self, parameter: Parameter, values: Sequence[Any]) -> None:
        self.options = None if parameter.options is None else list(parameter.options)
        self.log, self.whole = parameter.log, parameter.is_whole
        if self.options is not None:
            self.options += [value for value in dict.fromkeys(values) if value not in self.options]
        else:
            self.low, self.high = min([parameter.low, *values]), max([parameter.high, *values])

    def position(self, value: Any) -> float:
        """From 0 to 1; in the middle where there is but one value."""
        if self.options is not None:
            count = len(self.options)
            return self.options.index(value) / (count - 1) if count > 1 else 0.5
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and what is written there."""
        return [(self.position(value), setting_text(value)) for value in self._tick_values()]

    def _tick_values(self) -> list[Any]:
        if self.options is not None:
            return self.options
        if self.low == self.high:
            return [self.low]
        if self.log:
            return _log_ticks(self.low, self.high, self.whole)
        from matplotlib.ticker import MaxNLocator

        values = MaxNLocator(4, integer=self.whole, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        slack = 1e-9 * (self.high - self.low)
        inside = [float(value) for value in values if self.low - slack <= value <= self.high + slack]
        # 0.1 + 0.2 in a tick would be written with all its digits.
        return [round(value) if self.whole else float(f"{value:.6g}") for value in inside]


def _log_ticks(low: float, high: float, whole: bool) -> list[float]:
    """Powers of ten if there are three of them, else four values between the ends."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    count = last - first + 1
    if count >= 3:
        return [10.0**exponent for exponent in range(first, last + 1, math.ceil(count / 5))]
    between = [low * (high / low) ** (step / 3) for step in range(4)]
    # The ends exactly; between them one digit fewer than is confusing, if that stays between them.
    rounded = [low, *(float(f"{value:.2g}") for value in between[1:3]), high]
    return list(dict.fromkeys(round(value) if whole else value for value in rounded))
