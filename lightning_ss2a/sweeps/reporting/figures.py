"""The pictures of a sweep, as PNG files in the study's folder.

Drawn from the trials' records with matplotlib alone. Optuna's own pictures (optuna.visualization.matplotlib) were
tried: labels lie on top of each other, names are cut off, the spread over repeats is not shown, and matplotlib's style
is changed for the whole process.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_ss2a.sweeps.reporting.drawing import (
    BEST,
    FAINT,
    PLAIN,
    as_png,
    legible,
    new_figure,
    plain_axes,
    title_of,
    value_range,
)
from lightning_ss2a.sweeps.reporting.importance import Importances
from lightning_ss2a.sweeps.reporting.parameter_figures import parallel_coordinates, slices
from lightning_ss2a.sweeps.reporting.ranking import Ranked, pareto_front, rank
from lightning_ss2a.sweeps.reporting.text import replace_file, short_names
from lightning_ss2a.sweeps.running.records import Objective, TrialRecord
from lightning_ss2a.sweeps.space import Parameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_AXES = 7
"""Parallel coordinates of more parameters cannot be followed; the most important are drawn."""


def write_figures(
    folder: Path,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    parameters: Mapping[str, Parameter],
    importances: Sequence[Importances] = (),
) -> list[Path]:
    """Write ``figures/{history,slice,parallel,importance}.png``; of several objectives one each, and ``pareto.png``.

    What cannot be drawn is left out: without a complete trial everything, of a single one all but the history;
    parameters that no trial varies; importances that there are none of.

    Args:
        folder: of the study.
        records: all trials.
        objectives: one or several.
        parameters: swept parameters by name.
        importances: what ``importance.find_importances`` found.

    Returns:
        The files written.
    """
    written = []
    for number, objective in enumerate(objectives):
        # The number: two metrics may differ in what a file name cannot hold.
        suffix = f"_{number}_{_file_name(objective.metric)}" if len(objectives) > 1 else ""
        found = next((item for item in importances if item.metric == objective.metric), None)
        for name, figure in _of_objective(records, objective, parameters, found).items():
            written.append(replace_file(folder / "figures" / f"{name}{suffix}.png", as_png(figure)))
    if len(objectives) > 1 and len(front := pareto_front(records, objectives)) > 0:
        figure = pareto(records, objectives, {record.number for record in front})
        written.append(replace_file(folder / "figures" / "pareto.png", as_png(figure)))
    return written


def _of_objective(
    records: Sequence[TrialRecord],
    objective: Objective,
    parameters: Mapping[str, Parameter],
    importances: Importances | None,
) -> dict[str, "Figure"]:
    ranked = rank(records, objective)
    figures = {"history": history(records, ranked, objective)} if ranked else {}
    shares = importances.shares if importances is not None else {}
    varied = {name: parameters[name] for name in parameters if _is_varied(ranked, name)}
    if len(ranked) > 1 and varied:
        # Most important first, the others as the user wrote them.
        order = sorted(varied, key=lambda name: -shares.get(name, 0.0))
        figures["slice"] = slices(ranked, objective, {name: varied[name] for name in order})
        drawn = {name: varied[name] for name in order[:MAX_AXES]}
        figures["parallel"] = parallel_coordinates(ranked, objective, drawn, left_out=len(varied) - len(drawn))
    if shares:
        figures["importance"] = importance_bars(importances)
    return figures


def history(records: Sequence[TrialRecord], ranked: Sequence[Ranked], objective: Objective) -> "Figure":
    """Value of each trial in the order of the queue, and the best so far; failed and pruned ones below.

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
        inside = min(max(item.value, limits[0]), limits[1])
        marker = "o" if inside == item.value else ("^" if item.value > inside else "v")
        if math.isfinite(item.spread) and marker == "o":
            axes.vlines(item.record.number, item.value - item.spread, item.value + item.spread, color=PLAIN, alpha=0.4)
        axes.plot(item.record.number, inside, marker, color=PLAIN, markersize=5, alpha=0.9, clip_on=False)
    last = max(record.number for record in records)
    _best_so_far(axes, in_order, objective, last)
    for state, marker in (("failed", "x"), ("pruned", "|")):
        numbers = [record.number for record in records if record.state == state]
        if numbers:
            # Just below the axis' lower edge, in its coordinates: these trials have no value.
            axes.plot(
                numbers,
                [0.02] * len(numbers),
                marker,
                color=FAINT,
                label=f"{state} ({len(numbers)})",
                transform=axes.get_xaxis_transform(),
            )
    axes.set(xlabel="trial", ylabel=title_of(objective), ylim=limits, xlim=(-0.5, last + 0.5))
    axes.xaxis.get_major_locator().set_params(integer=True)
    plain_axes(axes)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def _best_so_far(axes: "Axes", in_order: Sequence[Ranked], objective: Objective, last: int) -> None:
    numbers, values = [], []
    for item in in_order:
        best = item.value if not values or objective.better(item.value, values[-1]) else values[-1]
        numbers.append(item.record.number)
        values.append(best)
    label = "mean ± spread over repeats" if any(math.isfinite(item.spread) for item in in_order) else "value"
    axes.plot([], [], "o", color=PLAIN, label=label)
    axes.step([*numbers, last], [*values, values[-1]], where="post", color=BEST, label="best so far", zorder=1)


def importance_bars(importances: Importances) -> "Figure":
    """Bars of the shares, largest on top."""
    figure = new_figure(6.4, 1.3 + 0.36 * len(importances.shares))
    axes = figure.subplots()
    names = short_names([*importances.shares, *importances.left_out])
    labels = [legible(names[name], 32) for name in importances.shares]
    shares = [100 * share for share in importances.shares.values()]
    bars = axes.barh(labels, shares, color=PLAIN, height=0.65)
    axes.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(shares))
    axes.set_xlabel("share of the differences explained, % (fANOVA)")
    plain_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    title = f"{importances.metric}, {importances.trials} trials"
    if importances.left_out:
        title += f"\nleft out (one value, or not in every trial): {', '.join(names[n] for n in importances.left_out)}"
    figure.suptitle(title.replace("$", r"\$"), fontsize=10, wrap=True)
    return figure


def pareto(records: Sequence[TrialRecord], objectives: Sequence[Objective], front: set[int]) -> "Figure":
    """Each two objectives against each other; the trials of the front in red, with their numbers.

    Args:
        records: all trials.
        objectives: at least two.
        front: numbers of the trials on the front.
    """
    pairs = list(itertools.combinations(objectives, 2))
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = new_figure(5.2 * columns if columns > 1 else 6.4, 0.4 + 4.2 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (first, second) in zip(grid.flat, pairs, strict=False):
        _pair(axes, records, first, second, front, is_whole=len(objectives) == 2)
    for axes in list(grid.flat)[len(pairs) :]:
        axes.set_axis_off()
    figure.suptitle("Red: no other trial is better in all objectives", fontsize=10)
    return figure


def _pair(
    axes: "Axes", records: Sequence[TrialRecord], first: Objective, second: Objective, front: set[int], is_whole: bool
) -> None:
    places = [{item.record.number: item for item in rank(records, objective)} for objective in (first, second)]
    shown = [number for number in places[0] if number in places[1]]
    for number in sorted(shown, key=lambda number: number in front):
        x, y = places[0][number], places[1][number]
        colour = BEST if number in front else PLAIN
        errors = [spread if math.isfinite(spread) else 0.0 for spread in (x.spread, y.spread)]
        axes.errorbar(x.value, y.value, errors[1], errors[0], color=colour, elinewidth=0.8, alpha=0.35)
        axes.plot(x.value, y.value, "o", color=colour, markersize=5)
        if number in front:
            axes.annotate(str(number), (x.value, y.value), (4, 4), textcoords="offset points", fontsize=8)
    if is_whole:
        # Of three objectives, the front's shadow on two of them is no line.
        line = sorted((places[0][n].value, places[1][n].value) for n in front)
        steps = "steps-pre" if first.maximize else "steps-post"
        axes.plot(*zip(*line, strict=True), color=BEST, linewidth=1, alpha=0.6, drawstyle=steps, zorder=1)
    axes.set(xlabel=title_of(first), ylabel=title_of(second))
    axes.set_xlim(*value_range(list(places[0].values()), first))
    axes.set_ylim(*value_range(list(places[1].values()), second))
    plain_axes(axes)


def _is_varied(ranked: Sequence[Ranked], name: str) -> bool:
    # Not active counts as a value here: what a switch turns on and off is worth seeing.
    return any(name in item.record.point for item in ranked) and (
        len({repr(item.record.point.get(name, "")) for item in ranked}) > 1
    )


def _file_name(metric: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in metric)
