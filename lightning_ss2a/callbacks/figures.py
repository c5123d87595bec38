"""Pictures of the manifold for TensorBoard."""

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics.utilities.distributed import gather_all_tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLLECTED = ("visual_embedding", "audio_embedding", "class_index", "index")


class ManifoldFigures(Callback):
    """Draws the validation pairs: similarity matrix by class, 2-D map of both modalities, SSMS by class.

    Figures are drawn on the first validation epoch, then each time the epoch has doubled, and at the end of training,
    where the embeddings also go to TensorBoard's projector.

    Args:
        max_pairs: most validation pairs that a figure shows; evenly spread over the split where there are more.
    """

    def __init__(self, max_pairs: int = 1000) -> None:
        self.max_pairs = max_pairs
        self._next_epoch = 0
        self._rows: list[dict[str, Tensor]] = []
        self._latest: dict[str, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        """When the next figures are due."""
        return {"next_epoch": self._next_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._next_epoch = state_dict["next_epoch"]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor],
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the embeddings, where a figure is due."""
        if self._is_due(trainer):
            self._rows.append({name: (outputs | batch)[name].detach() for name in COLLECTED})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, now that the module has computed its metrics."""
        if not self._is_due(trainer) or not self._rows:
            return
        self._latest = self._gather()
        self._rows = []
        self._next_epoch = max(1, 2 * trainer.current_epoch)
        if trainer.is_global_zero:
            per_class = pl_module.last_ssms_per_class
            for writer in _writers(trainer):
                self._draw(writer, trainer, per_class)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export the last embeddings to the projector."""
        if not trainer.is_global_zero or self._latest is None:
            return
        classes, names = self._latest["class_index"].tolist(), trainer.datamodule.classes
        metadata = [[modality, names[c]] for modality in ("visual", "audio") for c in classes]
        both = torch.cat([self._latest["visual_embedding"], self._latest["audio_embedding"]])
        for writer in _writers(trainer):
            writer.add_embedding(both, metadata, metadata_header=["modality", "class"], tag="cmss", global_step=0)

    def _is_due(self, trainer: Trainer) -> bool:
        last = trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        return fitting and (last or trainer.current_epoch >= self._next_epoch)

    def _gather(self) -> dict[str, Tensor]:
        """All ranks' rows in the order of the split, at most ``max_pairs``, on the CPU."""
        rows = {name: torch.cat([row[name] for row in self._rows]) for name in COLLECTED}
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rows = {name: torch.cat(gather_all_tensors(value)) for name, value in rows.items()}
        order = rows["index"].argsort()
        if len(order) > self.max_pairs:
            order = order[torch.linspace(0, len(order) - 1, self.max_pairs).round().long()]
        rows = {name: value[order].cpu() for name, value in rows.items()}
        for name in ("visual_embedding", "audio_embedding"):
            rows[name] = normalize(rows[name].float(), dim=-1)
        return rows

    def _draw(self, writer: Any, trainer: Trainer, per_class: Tensor | None) -> None:
        rows, names, step = self._latest, trainer.datamodule.classes, trainer.global_step
        writer.add_figure("figures/similarity", similarity_figure(rows, names), step)
        writer.add_figure("figures/map", map_figure(rows, names), step)
        if per_class is not None:
            writer.add_figure("figures/ssms_by_class", class_bars_figure(per_class, names), step)


def _writers(trainer: Trainer) -> list:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _axes(width: float, height: float) -> tuple["Figure", Any]:
    """A figure without pyplot: no global state, no window system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def similarity_figure(rows: dict[str, Tensor], names: list[str]) -> "Figure":
    """Cosine of every visual (rows) with every audio embedding (columns), ordered by class; matches on the diagonal."""
    order = rows["class_index"].argsort(stable=True)
    similarity = rows["visual_embedding"][order] @ rows["audio_embedding"][order].T
    classes, counts = rows["class_index"][order].unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    figure, axes = _axes(7, 6)
    image = axes.imshow(similarity.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
    figure.colorbar(image, ax=axes, label="cosine")
    if len(classes) <= 40:
        centres = (ends - counts / 2 - 0.5).tolist()
        labels = [names[c] for c in classes.tolist()]
        axes.set_xticks(centres, labels, rotation=90)
        axes.set_yticks(centres, labels)
        for end in ends[:-1].tolist():
            axes.axhline(end - 0.5, color="black", linewidth=0.5)
            axes.axvline(end - 0.5, color="black", linewidth=0.5)
    axes.set(xlabel="audio", ylabel="visual", title="CMSS similarity of validation pairs")
    return figure


def map_figure(rows: dict[str, Tensor], names: list[str]) -> "Figure":
    """First two principal components of both modalities; a line joins each pair, colour is the class."""
    both = torch.cat([rows["visual_embedding"], rows["audio_embedding"]])
    centred = both - both.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    visual, audio = (centred @ directions.T).chunk(2)
    figure, axes = _axes(8, 6)
    colours = rows["class_index"].numpy()
    axes.plot(*torch.stack([visual, audio]).permute(2, 0, 1).numpy(), color="lightgrey", linewidth=0.5, zorder=0)
    for points, marker, label in ((visual, "o", "visual"), (audio, "x", "audio")):
        axes.scatter(
            *points.T.numpy(), c=colours, cmap="tab20", marker=marker, s=18, label=label, vmin=0, vmax=len(names)
        )
    modality_legend = axes.legend(loc="upper right")
    if len(names) <= 20:
        axes.add_artist(modality_legend)
        from matplotlib.lines import Line2D

        colour_of = axes.collections[0].to_rgba
        handles = [Line2D([], [], marker="s", linestyle="", color=colour_of(c), label=n) for c, n in enumerate(names)]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set(xlabel="first principal component", ylabel="second", title="CMSS embeddings: visual and audio")
    return figure


def class_bars_figure(per_class: Tensor, names: list[str]) -> "Figure":
    """Mean SSMS of each class that the validation split has, highest first; at most 60 classes."""
    present = [(float(v), n) for v, n in zip(per_class, names, strict=True) if not torch.isnan(v)]
    shown = sorted(present, reverse=True)[:60]
    figure, axes = _axes(7, 0.9 + 0.25 * len(shown))
    axes.barh([name for _, name in shown], [value for value, _ in shown], color="tab:blue")
    axes.invert_yaxis()
    axes.set(xlim=(0, 10), xlabel="SSMS (F1 x 10)", title="Sound Source Matching Score by class")
    return figure
