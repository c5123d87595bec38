"""The figures of a sweep, as PNG files in the study's folder.

Drawn from the trials' records with matplotlib alone. Optuna's own (optuna.visualization.matplotlib) were tried: labels
lie on top of each other, names are cut off, the spread over repeats is not shown, and matplotlib's style is changed for
the whole process.
"""

import itertools
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_ss2a.drawing import new_figure
from lightning_ss2a.files import write_whole
from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.sweeps.reporting.drawing import (
    BEST,
    FAINT,
    PLAIN,
    as_png,
    draw_trial,
    legible,
    plain_axes,
    title_of,
    value_range,
)
from lightning_ss2a.sweeps.reporting.ranking import Ranked, rank
from lightning_ss2a.sweeps.space import Parameter
from lightning_ss2a.sweeps.text import setting_text, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_A_ROW = 4


def write_figures(
    folder: Path,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    parameters: Mapping[str, Parameter],
    shares: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Path]:
    """Writes ``figures/{history,slice}.png``; of several objectives one each.

    What cannot be drawn is left out: without a complete trial everything, of a single one, or where no parameter
    varies, all but the history.

    Args:
        folder: of the study.
        records: all trials.
        objectives: one or several.
        parameters: swept parameters by name.
        shares: importance of each parameter, by metric: the most important come first.

    Returns:
        The files written.
    """
    figures: dict[str, Figure] = {}
    for number, objective in enumerate(objectives):
        # The number: two metrics may differ in what a file name cannot hold.
        suffix = f"_{number}_{_file_name(objective.metric)}" if len(objectives) > 1 else ""
        ranked = rank(records, objective)
        if ranked:
            figures[f"history{suffix}"] = history(records, ranked, objective)
        varied = [name for name in parameters if _is_varied(ranked, name)]
        if len(ranked) > 1 and varied:
            importance = (shares or {}).get(objective.metric, {})
            varied.sort(key=lambda name: -importance.get(name, 0.0))
            figures[f"slice{suffix}"] = slices(ranked, objective, {name: parameters[name] for name in varied})
    if figures:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    return [write_whole(folder / "figures" / f"{name}.png", as_png(figure)) for name, figure in figures.items()]


def history(records: Sequence[TrialRecord], ranked: Sequence[Ranked], objective: Objective) -> "Figure":
    """Draws the value of each trial in the order of the queue, and the best so far; failed and pruned ones below.

    Args:
        records: all trials.
        ranked: complete trials, best first, at least one.
        objective: whose values they are.
    """
    figure = new_figure(7.2, 4.0)
    axes = figure.subplots()
    limits = value_range(ranked, objective)
    in_order = sorted(ranked, key=lambda item: item.record.number)
    for item in in_order:
        draw_trial(axes, item.record.number, item, limits, PLAIN)
    last = max(record.number for record in records)
    label = "mean ± spread over repeats" if any(math.isfinite(item.spread) for item in in_order) else "value"
    axes.plot([], [], "o", color=PLAIN, label=label)
    numbers = [item.record.number for item in in_order]
    best = list(itertools.accumulate((item.value for item in in_order), max if objective.maximize else min))
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=BEST, label="best so far", zorder=1)
    for state, marker in (("failed", "x"), ("pruned", "|")):
        numbers = [record.number for record in records if record.state == state]
        if numbers:
            # Just above the axis' lower edge, in its coordinates: these trials have no value.
            heights, label = [0.02] * len(numbers), f"{state} ({len(numbers)})"
            axes.plot(numbers, heights, marker, color=FAINT, label=label, transform=axes.get_xaxis_transform())
    axes.set(xlabel="trial", ylabel=title_of(objective), ylim=limits, xlim=(-0.5, last + 0.5))
    axes.locator_params(axis="x", integer=True)
    plain_axes(axes)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def slices(ranked: Sequence[Ranked], objective: Objective, parameters: Mapping[str, Parameter]) -> "Figure":
    """Draws a panel per parameter: each trial's mean and spread, the best in red, medians of choices in grey.

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
        active = [item for item in ranked if name in item.record.point]
        draw = _range if parameters[name].options is None else _choices
        draw(axes, active, name, parameters[name], limits, ranked[0])
        few = f"\n(active in {len(active)} of {len(ranked)})" if len(active) < len(ranked) else ""
        axes.set_xlabel(legible(names[name], 30) + few)
        axes.set_ylim(*limits)
        axes.tick_params(labelsize=8)
        plain_axes(axes)
    for axes in list(grid.flat)[len(parameters) :]:
        axes.set_axis_off()
    figure.supylabel(title_of(objective), fontsize=10)
    outside = sum(not limits[0] <= item.value <= limits[1] for item in ranked)
    note = f"; {outside} beyond the edge as triangles" if outside else ""
    figure.suptitle(f"{len(ranked)} complete trials, the best in red{note}", fontsize=10)
    return figure


def _range(
    axes: "Axes",
    active: Sequence[Ranked],
    name: str,
    parameter: Parameter,
    limits: tuple[float, float],
    best: Ranked,
) -> None:
    if parameter.log:
        axes.set_xscale("log")
    elif parameter.is_whole:
        axes.locator_params(axis="x", integer=True)
    axes.axvspan(*parameter.bounds, color="none")  # all of it is shown
    for item in reversed(active):
        draw_trial(axes, item.record.point[name], item, limits, BEST if item is best else PLAIN)


def _choices(
    axes: "Axes",
    active: Sequence[Ranked],
    name: str,
    parameter: Parameter,
    limits: tuple[float, float],
    best: Ranked,
) -> None:
    values = [item.record.point[name] for item in active]
    places = {option: place for place, option in enumerate(dict.fromkeys([*parameter.ends, *values]))}
    for item in reversed(active):
        # Side by side, by a draw that is the same each time; each point next to its choice.
        x = places[item.record.point[name]] + random.Random(item.record.number).uniform(-0.14, 0.14)
        draw_trial(axes, x, item, limits, BEST if item is best else PLAIN)
    for option, place in places.items():
        # A grey stroke at the median: one trial gone astray does not move it out of sight.
        own = [item.value for item in active if item.record.point[name] == option]
        if own:
            axes.hlines(statistics.median(own), place - 0.2, place + 0.2, color=FAINT, linewidth=2, zorder=1)
    texts = [setting_text(option) for option in places]
    slanted = len(texts) > 4 and sum(len(text) + 2 for text in texts) > 40
    axes.set_xticks(
        list(places.values()),
        [legible(text, 16, 1) if slanted else legible(text, 40 // len(texts), 3) for text in texts],
        rotation=40 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor" if slanted else "default",
    )
    axes.set_xlim(-0.25, len(places) - 0.75)


def _is_varied(ranked: Sequence[Ranked], name: str) -> bool:
    # Not active counts as a value here: what a switch turns on and off is worth seeing.
    return any(name in item.record.point for item in ranked) and (
        len({repr(item.record.point.get(name, "")) for item in ranked}) > 1
    )


def _file_name(metric: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in metric)
