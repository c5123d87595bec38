"""Figures of a Remixer's validation for TensorBoard."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from lightning_ss2a.callbacks.figures.attention import attention_figure
from lightning_ss2a.callbacks.figures.drawing import FigureCallback, figure_with_axes, tensors_in
from lightning_ss2a.callbacks.figures.scene_record import GROUPS, SceneRecord, scene_rows
from lightning_ss2a.callbacks.outputs import add_figures
from lightning_ss2a.callbacks.protocols import MixesScenes, mixes_scenes
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.data.loading.tensors import tensor_column
from lightning_ss2a.metric_names import OWN
from lightning_ss2a.models import RemixerOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREDICTIONS = {OWN: "tab:blue", "draw": "skyblue", "cycle_mix": "navy"}
BASELINES = ("dimgrey", "darkgrey", "tab:olive", "tan", "tab:brown", "rosybrown")
SCORES = {
    "mean": "mean cosine to the sources",
    "min": "cosine to the farthest source",
    "std": "standard deviation of the cosines (lower is better)",
}
SPREAD = (0.1, 0.9)
MOST_LINEAR_ITERATIONS = 8


class RemixerFigures(FigureCallback):
    """Draws the validation scenes: Cycle Mix's score by iteration, attention, SSMS by number of sources.

    Figures are drawn on the first validation epoch, then each time the epoch has doubled, and at the end of training.
    Means are over all scenes; spreads and examples come from at most ``max_rows`` of them.

    Args:
        max_scenes: most scenes whose attention is shown one by one; evenly spread over the split where there are more.
        max_rows: most scenes that are kept until the figures are drawn, evenly spread over the split.
    """

    def __init__(self, max_scenes: int = 24, max_rows: int = 4096) -> None:
        super().__init__()
        self.max_scenes = max_scenes
        self.max_rows = max_rows
        self._record = SceneRecord(max_rows)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the validation before."""
        self._record = SceneRecord(self.max_rows)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what is drawn, if figures are due; a batch without scenes has no outputs."""
        tensors, module = tensors_in(outputs), mixes_scenes(pl_module, self)
        if tensors and self.is_due(trainer):
            self._record.add(scene_rows(tensors, batch, module.use_global, module.remixer.options))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures, now that the module has computed its metrics."""
        if not self.is_due(trainer):
            return
        record, self._record = self._record.gathered(), SceneRecord(self.max_rows)
        if not record.parts:
            return
        self.note_drawn(trainer)
        add_figures(trainer, lambda: self._draw(record, data_of(trainer).classes, mixes_scenes(pl_module, self)))

    def _draw(self, record: SceneRecord, classes: list[str], module: MixesScenes) -> dict[str, "Figure"]:
        ssms, rest = module.ssms_by_group, _rest_name(module.remixer.options)
        figures = {"attention": attention_figure(record, classes, self.max_scenes, module.use_global, rest)}
        if "history" in record.totals:
            figures["cycle_mix"] = cycle_mix_figure(record, SCORES[module.cycle_mix.score])
        if ssms:
            figures["ssms_by_sources"] = ssms_figure(ssms, record.totals["scenes"])
        return figures


def _rest_name(options: RemixerOptions) -> str:
    """Names what takes the attention that no source takes, see ``Remixer.attention_weights``."""
    if options.variant == "published":
        return "rest to 100 %"
    return "[cls]" if options.mask_padding else "[cls], padding"


def cycle_mix_figure(record: SceneRecord, score: str) -> "Figure":
    """Draws the mean best score after each iteration and its spread over the scenes, by number of sources.

    Args:
        record: validation scenes.
        score: what the score is.
    """
    from matplotlib import colormaps

    rows, scenes, means = record.rows(), record.totals["scenes"], record.mean("history")
    history, groups = tensor_column(rows, "history"), tensor_column(rows, "group")
    figure, axes = figure_with_axes(6.2, 4.2)
    iterations = np.arange(1, means.shape[1] + 1)
    many = len(iterations) > MOST_LINEAR_ITERATIONS
    for group in scenes.nonzero().flatten().tolist():
        colour = colormaps["plasma"](0.9 * group / (len(GROUPS) - 1))
        kept = history[groups == group].numpy()
        if len(kept):
            low, high = np.quantile(kept, SPREAD, axis=0)
            axes.fill_between(iterations, low, high, color=colour, alpha=0.12, linewidth=0)
        label = f"{GROUPS[group]} ({int(scenes[group]):,})"
        axes.plot(iterations, means[group].numpy(), color=colour, marker="" if many else "o", markersize=4, label=label)
    if many:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
    else:
        axes.set_xticks(iterations)
    axes.set(xlabel="iteration", ylabel=score)
    figure.legend(loc="outside right upper", title="sources (scenes)", fontsize=8, title_fontsize=8, frameon=False)
    axes.set_title("Best score of Cycle Mix: mean, and 10 to 90 % of the scenes", fontsize=10)
    return figure


def ssms_figure(by_sources: Mapping[str, Tensor], scenes: Tensor) -> "Figure":
    """Draws SSMS by number of sources: the Remixer's ways to predict, then the baselines.

    Args:
        by_sources: SSMS of each group, [groups], NaN without scenes; by name.
        scenes: how many scenes each group has, [groups].
    """
    there = scenes.nonzero().flatten().cpu()
    baselines = dict(zip((name for name in by_sources if name not in PREDICTIONS), BASELINES * 3, strict=False))
    series = {name: colour for name, colour in (PREDICTIONS | baselines).items() if name in by_sources}
    width = 0.84 / len(series)
    figure, axes = figure_with_axes(max(6.2, 1.8 + 0.15 * len(there) * (len(series) + 1)), 4.2)
    for place, (name, colour) in enumerate(series.items()):
        values = by_sources[name].detach().cpu()[there].numpy()
        centres = np.arange(len(there)) + (place - (len(series) - 1) / 2) * width
        label = name.replace("_", " ") if name in PREDICTIONS else f"baseline: {name.replace('_', ' ')}"
        bars = axes.bar(centres, values, width, color=colour, label=label)
        texts = ["" if np.isnan(value) else f"{value:.1f}" for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=6, rotation=90)
    axes.set_xticks(range(len(there)), [f"{GROUPS[g]}\n({int(scenes[g]):,})" for g in there.tolist()])
    axes.set(ylim=(0, 10.8), xlabel="sources (scenes)", ylabel="SSMS (F1 × 10)")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    axes.set_title("Sound Source Matching Score by number of sources", fontsize=10)
    return figure
