"""Values of the objective over each parameter, and over all of them at once."""

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_ss2a.sweeps.reporting.drawing import (
    BEST,
    FAINT,
    PLAIN,
    Scale,
    colours,
    legible,
    new_figure,
    plain_axes,
    title_of,
    value_range,
)
from lightning_ss2a.sweeps.reporting.ranking import Ranked
from lightning_ss2a.sweeps.reporting.text import column_digits, mean_and_spread, short_names
from lightning_ss2a.sweeps.running.records import Objective
from lightning_ss2a.sweeps.space import Parameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_A_ROW = 4
INACTIVE = -0.14
"""Where, on an axis from 0 to 1, trials stand in which the parameter is not active."""


def slices(ranked: Sequence[Ranked], objective: Objective, parameters: Mapping[str, Parameter]) -> "Figure":
    """A panel per parameter: each trial's mean, a line for its spread, the best in red, medians of choices in grey.

    Args:
        ranked: complete trials, best first.
        objective: whose values they are.
        parameters: at least one.
    """
    rows = math.ceil(len(parameters) / PANELS_A_ROW)
    columns = math.ceil(len(parameters) / rows)
    figure = new_figure(max(5.5, 2.9 * columns), 0.5 + 2.7 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    limits = value_range(ranked, objective)
    names = short_names(parameters)
    for axes, name in zip(grid.flat, parameters, strict=False):
        _slice(axes, ranked, name, parameters[name], limits)
        axes.set_xlabel(_heading(ranked, name, names[name]))
    for axes in list(grid.flat)[len(parameters) :]:
        axes.set_axis_off()
    figure.supylabel(title_of(objective), fontsize=10)
    outside = sum(not limits[0] <= item.value <= limits[1] for item in ranked)
    note = f"; {outside} beyond the edge as triangles" if outside else ""
    figure.suptitle(f"{len(ranked)} complete trials, the best in red{note}", fontsize=10)
    return figure


def parallel_coordinates(
    ranked: Sequence[Ranked], objective: Objective, parameters: Mapping[str, Parameter], left_out: int = 0
) -> "Figure":
    """A line per trial through its parameters to its value at the right; darker is better, the best in red.

    Args:
        ranked: complete trials, best first.
        objective: whose values they are.
        parameters: at least one, from left to right.
        left_out: number of parameters that are not drawn.
    """
    figure = new_figure(max(6.0, 1.8 + 1.65 * len(parameters)), 5.0)
    axes = figure.subplots()
    scales = {name: Scale(parameter, _values(ranked, name)) for name, parameter in parameters.items()}
    limits = value_range(ranked, objective)
    colour_map, norm = colours(ranked, objective, limits)
    for item in reversed(ranked):  # the best on top
        is_best = item is ranked[0]
        heights = [_height(scales[name], item, name) for name in parameters]
        value = min(max(item.value, limits[0]), limits[1])
        axes.plot(
            [*heights, (value - limits[0]) / (limits[1] - limits[0])],
            color=BEST if is_best else colour_map(norm(value)),
            linewidth=2.4 if is_best else 1.2,
            alpha=1.0 if is_best else 0.35 + 0.55 * _goodness(value, limits, objective),
            solid_joinstyle="round",
        )
    lacking = any(name not in item.record.point for item in ranked for name in parameters)
    names = short_names(parameters)
    for place, name in enumerate(parameters):
        _upright(axes, place, scales[name].ticks(), legible(names[name], 14))
        if any(name not in item.record.point for item in ranked):
            _note(axes, place, INACTIVE, "not active")
    _upright(axes, len(parameters), _value_ticks(limits), legible(objective.metric, 14))
    axes.set_xlim(-0.25, len(parameters) + 0.6)
    axes.set_ylim(INACTIVE - 0.05 if lacking else -0.04, 1.04)
    axes.set_axis_off()
    best = mean_and_spread(ranked[0].value, ranked[0].spread, column_digits(item.spread for item in ranked))
    few = f", {left_out} less important parameters left out" if left_out else ""
    figure.suptitle(
        f"{title_of(objective)}: {len(ranked)} trials, darker is better, best {best} in red{few}", fontsize=10
    )
    return figure


def _goodness(value: float, limits: tuple[float, float], objective: Objective) -> float:
    share = (value - limits[0]) / (limits[1] - limits[0])
    return share if objective.maximize else 1 - share


def _slice(
    axes: "Axes", ranked: Sequence[Ranked], name: str, parameter: Parameter, limits: tuple[float, float]
) -> None:
    active = [item for item in ranked if name in item.record.point]
    scale = Scale(parameter, _values(ranked, name))
    for item in reversed(active):
        colour = BEST if item is ranked[0] else PLAIN
        x = scale.position(item.record.point[name])
        if scale.options is not None:
            # Side by side, by a draw that is the same each time; each point next to its choice.
            x += random.Random(item.record.number).uniform(-0.14, 0.14) / max(1, len(scale.options) - 1)
        inside = min(max(item.value, limits[0]), limits[1])
        marker = "o" if inside == item.value else ("^" if item.value > inside else "v")
        if math.isfinite(item.spread) and marker == "o":
            axes.vlines(x, item.value - item.spread, item.value + item.spread, color=colour, linewidth=1, alpha=0.4)
        axes.plot(x, inside, marker, color=colour, markersize=5, alpha=0.85, markeredgewidth=0, clip_on=False)
    if scale.options is not None:
        _choice_medians(axes, active, name, scale)
    _label_ticks(axes, scale.ticks())
    edge = 0.25 / max(1, len(scale.options) - 1) if scale.options is not None else 0.05
    axes.set_xlim(-edge, 1 + edge)
    axes.set_ylim(*limits)
    axes.tick_params(axis="y", labelsize=8)
    plain_axes(axes)


def _label_ticks(axes: "Axes", ticks: Sequence[tuple[float, str]]) -> None:
    """Labels side by side in up to three lines; slanted where there are too many for that."""
    slanted = len(ticks) > 4 and sum(len(text) + 2 for _, text in ticks) > 40
    axes.set_xticks(
        [position for position, _ in ticks],
        [legible(text, 16, 1) if slanted else legible(text, 40 // len(ticks), 3) for _, text in ticks],
        rotation=40 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor" if slanted else "default",
        fontsize=7.5,
    )


def _choice_medians(axes: "Axes", active: Sequence[Ranked], name: str, scale: Scale) -> None:
    """A grey stroke at the median of each choice: one trial gone astray does not move it out of sight."""
    half = 0.2 / max(1, len(scale.options) - 1)
    for option in scale.options:
        values = [item.value for item in active if item.record.point[name] == option]
        if values:
            middle = scale.position(option)
            axes.hlines(statistics.median(values), middle - half, middle + half, color=FAINT, linewidth=2, zorder=1)


def _heading(ranked: Sequence[Ranked], name: str, short: str) -> str:
    active = sum(name in item.record.point for item in ranked)
    label = legible(short, 30)
    return label if active == len(ranked) else f"{label}\n(active in {active} of {len(ranked)})"


def _values(ranked: Sequence[Ranked], name: str) -> list:
    return [item.record.point[name] for item in ranked if name in item.record.point]


def _height(scale: Scale, item: Ranked, name: str) -> float:
    return scale.position(item.record.point[name]) if name in item.record.point else INACTIVE


def _value_ticks(limits: tuple[float, float]) -> list[tuple[float, str]]:
    return Scale(Parameter(low=limits[0], high=limits[1], type="float"), []).ticks()


def _upright(axes: "Axes", place: int, ticks: Sequence[tuple[float, str]], heading: str) -> None:
    """An axis of the parallel coordinates, its labels on a white ground, so that no line crosses them."""
    axes.plot([place, place], [0, 1], color="#404040", linewidth=1, zorder=3)
    axes.annotate(
        heading, (place, 1), (0, 12), textcoords="offset points", ha="center", va="bottom", fontsize=9, weight="bold"
    )
    for position, text in ticks:
        axes.plot([place - 0.02, place + 0.02], [position, position], color="#404040", linewidth=1, zorder=3)
        _note(axes, place, position, legible(text, 18))


def _note(axes: "Axes", place: int, position: float, text: str) -> None:
    ground = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axes.annotate(
        text,
        (place, position),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        zorder=4,
        bbox=ground,
    )
