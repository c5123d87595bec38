"""What the figures of a sweep share: colours, marks, labels and the range of values."""

import io
import math
import statistics
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_ss2a.drawing import literal
from lightning_ss2a.sweeps.records import Objective
from lightning_ss2a.sweeps.reporting.ranking import Ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN, BEST, FAINT = "#2c7fb8", "#d7301f", "#9a9a9a"


def as_png(figure: "Figure") -> bytes:
    """Writes a figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def plain_axes(axes: "Axes") -> None:
    """Takes the box away, and draws a faint grid below."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def draw_trial(axes: "Axes", x: float, item: Ranked, limits: tuple[float, float], colour: str) -> None:
    """Draws a trial's mean with its spread; a triangle at the edge where the value lies beyond it."""
    inside = min(max(item.value, limits[0]), limits[1])
    marker = "o" if inside == item.value else ("^" if item.value > inside else "v")
    if math.isfinite(item.spread) and marker == "o":
        axes.vlines(x, item.value - item.spread, item.value + item.spread, color=colour, linewidth=1, alpha=0.4)
    axes.plot(x, inside, marker, color=colour, markersize=5, alpha=0.85, markeredgewidth=0, clip_on=False)


def legible(text: str, width: int = 16, lines: int = 2) -> str:
    """Writes a label in at most so many lines, broken at its underscores and dots where it can be."""
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
    return literal("\n".join(wrapped))


def title_of(objective: Objective) -> str:
    """Names the metric, and which way is better."""
    return literal(f"{objective.metric} ({objective.better})")


def value_range(ranked: Sequence[Ranked], objective: Objective) -> tuple[float, float]:
    """Finds the range of values worth showing: all, unless few that went astray would flatten the others.

    Args:
        ranked: at least one trial, best first.
        objective: whose values they are.

    Returns:
        Least and greatest value, with a margin.
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
