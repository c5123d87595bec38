"""Which sources a Remixer attends to: means by number of sources above, single scenes below."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_ss2a.callbacks.figures.drawing import one_line
from lightning_ss2a.callbacks.figures.scene_record import GROUPS, MEANS, SceneRecord
from lightning_ss2a.data.loading.tensors import Rows, count, ragged_column, take, tensor_column, text_column
from lightning_ss2a.drawing import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SOURCES = 6
"""Sources of a scene that have a cell of their own; the others share one."""
MOST_FROM_UNIFORM = 2
"""Powers of two at which the colours end."""
CELL_HEIGHT, KEY_WIDTH, SCALE_WIDTH, MEANS_HEIGHT = 0.34, 1.3, 1.0, 2.9
CELL_WIDTHS, WIDTH = (0.95, 1.5), 10.0
"""Inches: cells are as wide as the figure has room for, within limits."""
FONT = 7
COLOURS = {"sources": "tab:blue", "global": "tab:orange", "rest": "lightgrey"}


def attention_figure(
    record: SceneRecord, names: Sequence[str], max_scenes: int, use_global: bool, rest: str = "[cls]"
) -> "Figure":
    """Draws how much of each source [cls] takes in the last layer.

    Args:
        record: validation scenes.
        names: class names.
        max_scenes: most scenes that are shown one by one.
        use_global: whether the scene's global embedding is among the tokens.
        rest: what the shares lack to 1.
    """
    scenes = example_scenes(record.rows(), max_scenes)
    columns = attention_columns(scenes, names, use_global, rest)
    scenes_height = 1.1 + CELL_HEIGHT * count(scenes)
    cell_width = float(np.clip((WIDTH - KEY_WIDTH - SCALE_WIDTH) / len(columns), *CELL_WIDTHS))
    width = KEY_WIDTH + cell_width * len(columns) + SCALE_WIDTH
    figure = new_figure(max(7.4, width), MEANS_HEIGHT + scenes_height)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(MEANS_HEIGHT, scenes_height)).flat
    left, right = above.subplots(1, 2, width_ratios=(3, 2))
    _draw_shares(left, record, {"sources": "sources"} | ({"global": "global"} if use_global else {}) | {"rest": rest})
    _draw_effective(right, record)
    _draw_scenes(below, columns, text_column(scenes, "key").tolist(), cell_width)
    return figure


def example_scenes(rows: Rows, most: int) -> Rows:
    """Chooses scenes evenly over the split, of two sources or more where there are any."""
    several = (tensor_column(rows, "group") > 0).nonzero().squeeze(1)
    chosen = several if len(several) else torch.arange(count(rows))
    if len(chosen) > most:
        chosen = chosen[torch.linspace(0, len(chosen) - 1, most).round().long()]
    return take(rows, chosen)


@dataclass
class Column:
    """A column of the table of K scenes.

    Attributes:
        heading: what it shows.
        shares: of 1, [K], NaN where a scene has no such source.
        uniform: what they would be if all tokens had the same, [K].
        labels: what stands above the share in each cell.
        is_source: whether it is that of one source, or of those that have no column.
    """

    heading: str
    shares: Tensor
    uniform: Tensor
    labels: list[str]
    is_source: bool = False

    @property
    def from_uniform(self) -> Tensor:
        """Powers of two between the share and the uniform one, [K]."""
        return (self.shares / self.uniform).log2().clamp(-MOST_FROM_UNIFORM, MOST_FROM_UNIFORM)


def attention_columns(scenes: Rows, names: Sequence[str], use_global: bool, rest: str) -> list[Column]:
    """Lists the columns: sources in the order of the scene, their sum, the global embedding if it is used, the rest."""
    (shares, valid), (classes, _) = (
        ragged_column(scenes, "shares").padded(),
        ragged_column(scenes, "classes").padded(fill=-1),
    )
    tokens, slots, summed = tensor_column(scenes, "tokens"), valid.sum(1), shares.sum(1)
    of_global = tensor_column(scenes, "global")
    shown = shares.masked_fill(~valid, torch.nan).T[:MOST_SOURCES]
    columns = [
        Column(f"source {i + 1}", share, 1 / tokens, [_class_name(c, names) for c in classes[:, i].tolist()], True)
        for i, share in enumerate(shown)
    ]
    if (slots > MOST_SOURCES).any():
        others = (slots - MOST_SOURCES).clamp_min(0)
        share = shares[:, MOST_SOURCES:].sum(1).masked_fill(others == 0, torch.nan)
        columns.append(Column("others", share, others / tokens, [f"{n} more" for n in others.tolist()], True))
    uniform = slots / tokens
    labels = [f"if uniform {100 * share:.0f} %" for share in uniform.tolist()]
    columns.append(Column("all sources", summed, uniform, labels))
    empty = [""] * len(tokens)
    if use_global:
        columns.append(Column("global", of_global, 1 / tokens, empty))
    left = (tokens - slots - int(use_global)) / tokens
    return [*columns, Column(rest, 1 - summed - of_global, left, empty)]


def _class_name(number: int, names: Sequence[str]) -> str:
    return one_line(names[number]) if number >= 0 else "?"


def fitted(text: str, inches: float, keep: str = "start") -> str:
    """Cuts a text at its end (or, with ``keep="end"``, at its start) to a width on paper, in inches."""
    while _text_width(text) > inches and len(text) > 1:
        bare = text.strip("…")
        text = bare[:-1].rstrip() + "…" if keep == "start" else "…" + bare[1:].lstrip()
    return text


@lru_cache(maxsize=10_000)
def _text_width(text: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    return TextToPath().get_text_width_height_descent(text, FontProperties(size=FONT), ismath=False)[0] / 72


def _draw_shares(axes: Any, record: SceneRecord, labels: dict[str, str]) -> None:
    scenes, means, overall = record.totals["scenes"], record.mean("means"), record.mean("means", groups=False)
    there = scenes.nonzero().squeeze(1)
    places, start = np.arange(len(there)), np.zeros(len(there))
    for name, label in labels.items():
        column = MEANS.index(name)
        height = 100 * means[there, column].numpy()
        share = f"{label}: {100 * overall[column]:.0f} %"
        axes.bar(places, height, 0.7, start, color=COLOURS[name], label=share)
        start = start + height
    uniform = 100 * means[there, MEANS.index("uniform")].numpy()
    axes.hlines(uniform, places - 0.4, places + 0.4, color="black", linewidth=1.2, label="sources if uniform")
    axes.set_xticks(places, [f"{GROUPS[g]}\n({int(scenes[g]):,})" for g in there.tolist()], fontsize=FONT)
    axes.set(xlabel="sources (scenes)", ylabel="mean attention (%)", ylim=(0, 100))
    axes.set_title("What [cls] attends to", fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=FONT, frameon=False)


def _draw_effective(axes: Any, record: SceneRecord) -> None:
    means, scenes = record.mean("means"), record.totals["scenes"]
    slots, effective = (means[scenes > 0, MEANS.index(name)].numpy() for name in ("slots", "effective"))
    most = max(2.0, float(slots.max()))
    axes.plot([1, most], [1, most], color="grey", linewidth=0.8, linestyle="--", label="uniform")
    axes.plot(slots, effective, "o-", color="tab:blue", markersize=4, linewidth=1, label="mean")
    axes.set(xlabel="sources", ylabel="exp(entropy)", ylim=(0.9, 1.05 * most))
    axes.set_title("Effective number of sources", fontsize=10)
    axes.locator_params(nbins=5, integer=True)
    axes.legend(loc="upper left", fontsize=FONT, frameon=False)


def _draw_scenes(figure: Any, columns: list[Column], keys: list[str], cell_width: float) -> None:
    axes = figure.subplots()
    axes.set_facecolor("gainsboro")
    matrix = torch.stack([column.from_uniform for column in columns], dim=1)
    options = {"vmin": -MOST_FROM_UNIFORM, "vmax": MOST_FROM_UNIFORM, "aspect": "auto", "interpolation": "nearest"}
    image = axes.imshow(np.ma.masked_invalid(matrix.numpy()), cmap="RdBu_r", **options)
    ticks = range(-MOST_FROM_UNIFORM, MOST_FROM_UNIFORM + 1)
    scale = figure.colorbar(image, ax=axes, ticks=ticks, label="× uniform share", aspect=40)
    scale.ax.set_yticklabels([f"1/{2**-power}" if power < 0 else f"{2**power}" for power in ticks], fontsize=FONT)
    for place, column in enumerate(columns):
        _write_cells(axes, place, column, 0.9 * cell_width)
    axes.axvline(sum(column.is_source for column in columns) - 0.5, color="black", linewidth=1)
    axes.hlines(np.arange(1, len(keys)) - 0.5, -0.5, len(columns) - 0.5, color="white", linewidth=0.8)
    axes.set_xticks(range(len(columns)), [column.heading for column in columns], fontsize=FONT)
    axes.set_yticks(range(len(keys)), [fitted(key, KEY_WIDTH, keep="end") for key in keys], fontsize=FONT)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(length=0, top=True, labeltop=True)
    axes.set_title(f"Attention in {len(keys)} validation scenes", fontsize=10)


def _write_cells(axes: Any, place: int, column: Column, width: float) -> None:
    for row, (share, ratio, label) in enumerate(
        zip(column.shares.tolist(), column.from_uniform.tolist(), column.labels, strict=True)
    ):
        if share == share:  # else there is no such source
            text = "\n".join(filter(None, [fitted(label, width), f"{100 * share:.0f} %"]))
            colour = "white" if abs(ratio) > 0.6 * MOST_FROM_UNIFORM else "black"
            axes.text(place, row, text, color=colour, fontsize=FONT, ha="center", va="center", parse_math=False)
