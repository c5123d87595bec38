"""The table that a run ends with."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

LOWER_IS_BETTER = ("median_rank", "modality_gap")
TABLE_WIDTH = 120


class RunSummary(Callback):
    """Prints, at the end of ``fit``, each metric with its floors, its best epoch, the checkpoint and the next commands.

    The column "last" is the model as it stands at the end. "best" is the best of all validation epochs, which a small
    validation split makes look better than the model is: compare runs by "last", or by means over folds.
    """

    def __init__(self) -> None:
        self._best: dict[str, tuple[float, int]] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the best value of each metric and its epoch; on_validation_epoch_end would see the epoch before."""
        if trainer.sanity_checking:
            return
        for name, value in trainer.callback_metrics.items():
            if not name.startswith("val/") or "_floor/" in name:
                continue
            lower = any(word in name for word in LOWER_IS_BETTER)
            best = self._best.get(name)
            if best is None or (value < best[0] if lower else value > best[0]):
                self._best[name] = (float(value), trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The best values so far, so that a resumed run knows them."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best values back."""
        self._best = {name: (value, epoch) for name, (value, epoch) in state_dict["best"].items()}

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table and what to do next."""
        if not self._best:
            return
        from rich.console import Console  # only a run's end needs it

        console = Console()
        console.width = max(console.width, TABLE_WIDTH)  # a log file has no width; names must not be cut
        console.print(summary_table(self._best, {k: float(v) for k, v in trainer.callback_metrics.items()}))
        checkpoint = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
        for line in next_commands(trainer, checkpoint):
            console.print(line, highlight=False, markup=False)


def summary_table(best: dict[str, tuple[float, int]], last: dict[str, float]) -> Any:
    """A rich table: metric, last, best, best epoch, and each floor beside it."""
    from rich.table import Table

    floors = ("chance", "mean_audio", "ridge")
    table = Table(title="Validation (floors: what needs no training)")
    for heading in ("metric", "last", "best", "best epoch", *(f"floor: {floor}" for floor in floors)):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, (value, epoch) in sorted(best.items()):
        shown = [last.get(f"{name}_floor/{floor}") for floor in floors]
        cells = ["" if floor is None else f"{floor:.3f}" for floor in shown]
        table.add_row(name.removeprefix("val/"), f"{last[name]:.3f}", f"{value:.3f}", str(epoch), *cells)
    return table


def next_commands(trainer: Trainer, checkpoint: ModelCheckpoint | None) -> list[str]:
    """Where the checkpoint is, and which commands use it."""
    folder = trainer.log_dir or trainer.default_root_dir
    lines = [f"TensorBoard: tensorboard --logdir {folder}"]
    path = checkpoint and (checkpoint.best_model_path or checkpoint.last_model_path)
    if path:
        config = f"{folder}/config.yaml"
        lines = [
            f"Best checkpoint ({checkpoint.monitor}): {path}",
            f"Measure it:  lightning test -c {config} --ckpt_path {path}",
            f"Embed data:  lightning predict -c {config} --ckpt_path {path}",
            *lines,
        ]
    return lines
