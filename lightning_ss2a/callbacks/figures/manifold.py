"""Figures of a manifold for TensorBoard."""

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_ss2a.callbacks.figures.drawing import FigureCallback, figure_with_axes, one_line, tensors_in
from lightning_ss2a.callbacks.outputs import add_figures, tensorboard_writers
from lightning_ss2a.callbacks.protocols import embeds_pairs
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.drawing import literal
from lightning_ss2a.metric_names import OWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLLECTED = ("visual_embedding", "audio_embedding", "class_index", "index")
MOST_NAMED_CLASSES = 40
MOST_LABELS = 24
MOST_BARS = 60


class ManifoldFigures(FigureCallback):
    """Draws the validation pairs: similarity matrix by class, 2-D map of both modalities, SSMS by class.

    Figures are drawn on the first validation epoch, then each time the epoch has doubled, and at the end of training,
    where the embeddings also go to TensorBoard's projector.

    Args:
        max_pairs: most validation pairs that a figure shows; evenly spread over the split where there are more.
    """

    def __init__(self, max_pairs: int = 1000) -> None:
        super().__init__()
        self.max_pairs = max_pairs
        self._rows: list[dict[str, Tensor]] = []
        self._latest: dict[str, Tensor] | None = None
        self._class_counts: list[int] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a module that has nothing to show.

        Raises:
            InputError: it embeds no pairs.
        """
        embeds_pairs(pl_module, self)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the embeddings, until the next validation: training may end after any."""
        if batch_idx == 0:
            self._rows = []
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._rows.append({name: {**tensors_in(outputs), **batch}[name].detach() for name in COLLECTED})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures, now that the module has computed its metrics."""
        if not self.is_due(trainer) or not self._rows:
            return
        rows = self._latest = self._gather(len(data_of(trainer).classes))
        self._rows = []
        self.note_drawn(trainer)
        names = [literal(one_line(name)) for name in data_of(trainer).classes]
        per_class = embeds_pairs(pl_module, self).ssms_by_group.get(OWN)
        add_figures(trainer, lambda: self._draw(rows, names, per_class))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exports the last embeddings to the projector."""
        names = [one_line(name) for name in data_of(trainer).classes]
        if self._rows:
            self._latest, self._rows = self._gather(len(names)), []  # a collective call, so every rank makes it
        if self._latest is None:
            return
        classes = self._latest["class_index"].tolist()
        metadata = [[modality, names[c]] for modality in ("visual", "audio") for c in classes]
        both = torch.cat([self._latest["visual_embedding"], self._latest["audio_embedding"]])
        for writer in tensorboard_writers(trainer):
            writer.add_embedding(both, metadata, metadata_header=["modality", "class"], tag="cmss", global_step=0)

    def _gather(self, classes: int) -> dict[str, Tensor]:
        """Gathers all ranks' rows in the order of the split, at most ``max_pairs``, on the CPU."""
        rows = {name: torch.cat([row[name] for row in self._rows]) for name in COLLECTED}
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rows = {name: torch.cat(gather_all_tensors(value)) for name, value in rows.items()}
        self._class_counts = torch.bincount(rows["class_index"], minlength=classes).tolist()
        order = rows["index"].argsort()
        if len(order) > self.max_pairs:
            order = order[torch.linspace(0, len(order) - 1, self.max_pairs).round().long()]
        rows = {name: value[order].cpu() for name, value in rows.items()}
        for name in ("visual_embedding", "audio_embedding"):
            rows[name] = normalize(rows[name].float(), dim=-1)
        return rows

    def _draw(self, rows: dict[str, Tensor], names: list[str], per_class: Tensor | None) -> dict[str, "Figure"]:
        figures = {"similarity": similarity_figure(rows, names), "map": map_figure(rows, names)}
        if per_class is not None:
            figures["ssms_by_class"] = class_bars_figure(per_class, self._class_counts, names)
        return figures


def similarity_figure(rows: dict[str, Tensor], names: list[str]) -> "Figure":
    """Draws the cosine of every visual (rows) with every audio embedding (columns), ordered by class."""
    order = rows["class_index"].argsort(stable=True)
    similarity = rows["visual_embedding"][order] @ rows["audio_embedding"][order].T
    figure, axes = figure_with_axes(5.6, 4.8)
    image = axes.imshow(similarity.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
    figure.colorbar(image, ax=axes, label="cosine")
    classes, counts = rows["class_index"][order].unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    if len(classes) <= MOST_NAMED_CLASSES:
        for end in ends[:-1].tolist():
            axes.axhline(end - 0.5, color="black", linewidth=0.5)
            axes.axvline(end - 0.5, color="black", linewidth=0.5)
        centres = (ends - counts / 2 - 0.5).tolist()
        shown = _with_room(centres, len(order))
        places, labels = [centres[i] for i in shown], [names[classes[i]] for i in shown]
        axes.set_xticks(places, labels, rotation=90, fontsize=7)
        axes.set_yticks(places, labels, fontsize=7)
    title = f"CMSS similarity of {len(order)} validation pairs\n(by class; matching pairs on the diagonal)"
    axes.set(xlabel="audio", ylabel="visual")
    axes.set_title(title, fontsize=10)
    return figure


def map_figure(rows: dict[str, Tensor], names: list[str]) -> "Figure":
    """Draws the first two principal components of both modalities; a line joins each pair, colour is the class."""
    both = torch.cat([rows["visual_embedding"], rows["audio_embedding"]])
    centred = both - both.mean(0)
    _, strengths, directions = torch.linalg.svd(centred, full_matrices=False)
    visual, audio = (centred @ directions[:2].T).chunk(2)
    shares = (strengths[:2] ** 2 / (strengths**2).sum().clamp_min(1e-12) * 100).tolist()
    figure, axes = figure_with_axes(6.2, 4.8)
    gaps = torch.full_like(visual, torch.nan)  # one broken line: an artist for each pair would take seconds
    joined = torch.stack([visual, audio, gaps], dim=1).flatten(0, 1)
    axes.plot(*joined.T.numpy(), color="lightgrey", linewidth=0.6, zorder=0)
    colours = _class_colours(len(names))
    of_row = [colours[c] for c in rows["class_index"].tolist()]
    axes.scatter(visual[:, 0], visual[:, 1], c=of_row, marker="o", s=16, linewidths=0)
    axes.scatter(audio[:, 0], audio[:, 1], c=of_row, marker="x", s=16, linewidths=1)
    figure.legend(handles=_map_legend(rows, names, colours), loc="outside right upper", fontsize=8, frameon=False)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel=f"first principal component ({shares[0]:.0f} % of variance)", ylabel=f"second ({shares[1]:.0f} %)")
    axes.set_title(f"CMSS embeddings of {len(visual)} validation pairs", fontsize=10)
    return figure


def class_bars_figure(per_class: Tensor, counts: list[int], names: list[str]) -> "Figure":
    """Draws the mean SSMS of each class that the validation split has, highest first; at most 60 classes.

    Args:
        per_class: SSMS of each class, NaN where the split has none.
        counts: validation pairs of each class; few pairs make a bar uncertain.
        names: class names.
    """
    present = [(float(v), f"{n} ({c})") for v, c, n in zip(per_class, counts, names, strict=True) if not v.isnan()]
    shown = sorted(present, reverse=True)[:MOST_BARS]
    figure, axes = figure_with_axes(5.6, 1.1 + 0.22 * len(shown))
    bars = axes.barh([name for _, name in shown], [value for value, _ in shown], color="tab:blue")
    axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlim=(0, 10), xlabel="SSMS (F1 × 10)")
    rest = f"\nthe best {len(shown)} of {len(present)} classes" if len(shown) < len(present) else ""
    axes.set_title(f"Sound Source Matching Score by class (pairs){rest}", fontsize=10)
    return figure


def _with_room(centres: list[float], length: int) -> list[int]:
    """Chooses labels that fit along an axis of ``length`` rows without touching, from its start."""
    shown: list[int] = []
    for i, centre in enumerate(centres):
        if not shown or centre - centres[shown[-1]] >= length / MOST_LABELS:
            shown.append(i)
    return shown


def _class_colours(classes: int) -> list[Any]:
    """Lists as many colours that can be told apart as there are; along a rainbow where there are more classes."""
    from matplotlib import color_sequences, colormaps

    if classes <= 20:
        return list(color_sequences["tab10" if classes <= 10 else "tab20"][:classes])
    return [colormaps["turbo"](i / (classes - 1)) for i in range(classes)]


def _map_legend(rows: dict[str, Tensor], names: list[str], colours: list[Any]) -> list[Any]:
    """Makes handles of the modalities' markers and, where they can be told apart, of the classes' colours."""
    from matplotlib.lines import Line2D

    def handle(marker: str, colour: Any, label: str) -> Line2D:
        return Line2D([], [], marker=marker, linestyle="", markersize=5, color=colour, label=label)

    modalities = [handle("o", "dimgrey", "visual"), handle("x", "dimgrey", "audio")]
    if len(names) > 20:
        return modalities
    shown = rows["class_index"].unique().tolist()
    return modalities + [handle("s", colours[c], names[c]) for c in shown]
