"""The table at the end of a run."""

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ss2a.callbacks.outputs import run_folder
from lightning_ss2a.callbacks.predictions import PredictionWriter
from lightning_ss2a.callbacks.trainer_state import callbacks_of, is_test_drive
from lightning_ss2a.files import is_local, local_path
from lightning_ss2a.metric_names import baseline_metric, baselines_among, is_baseline

LOWER_IS_BETTER = ("median_rank", "modality_gap")
TABLE_WIDTH = 120

Best = dict[str, tuple[float, int]]
"""Best value of each metric, and the epoch (from 0) that reached it first."""


class RunSummary(Callback):
    """Prints each metric with its baselines; after ``fit`` also its best epoch, the checkpoint and what to do next.

    The column "last" is the model as it stands at the end. "best" is the best of all validation epochs, which a small
    validation split makes look better than the model is: compare runs by "last", or by means over folds.
    """

    def __init__(self) -> None:
        self._best: Best = {}
        self._last: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Returns the best and the latest values so far: a resumed run may have no validation left."""
        return {"best": self._best, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them back."""
        self._best = {name: (value, epoch) for name, (value, epoch) in state_dict["best"].items()}
        self._last = state_dict.get("last", {})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers the best value of each metric and its epoch; on_validation_epoch_end would see the epoch before."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "validate":
            _print_values(trainer, pl_module, "val/")
        else:
            self._last = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._best = better_of(self._best, metrics(trainer.callback_metrics, "val/"), trainer.current_epoch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints what was measured."""
        _print_values(trainer, pl_module, "test/")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table and what to do next."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero or is_test_drive(trainer):
            return
        if self._best:
            _print_table(trainer, pl_module, summary_table(self._best, self._last))
        saving = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        checkpoint = next((c for c in saving if _saved_file(c) is not None), None)
        # Not through rich: it would break a long command into lines that cannot be pasted.
        with_predict = any(isinstance(callback, PredictionWriter) for callback in callbacks_of(trainer))
        lines = next_commands(str(folder), checkpoint, bool(trainer.loggers), with_predict, self._best)
        print("\n".join(lines), flush=True)


def metrics(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Selects the metrics of a stage among all logged values, without their baselines."""
    return {name: float(x) for name, x in values.items() if name.startswith(prefix) and not is_baseline(name)}


def better_of(best: Best, values: Mapping[str, float], epoch: int) -> Best:
    """Updates the best values, now that another epoch has been measured; NaN is never best."""
    better = dict(best)
    for name, value in values.items():
        sign = -1 if any(word in name for word in LOWER_IS_BETTER) else 1
        if not math.isnan(value) and (name not in best or sign * value > sign * best[name][0]):
            better[name] = (value, epoch)
    return better


def summary_table(best: Best, last: Mapping[str, float]) -> Any:
    """Makes a rich table of a training: metric, last, best, best epoch, and each baseline beside it."""
    rows = {name: [_number(last.get(name)), _number(value), str(epoch)] for name, (value, epoch) in best.items()}
    return _table("Validation", ["last", "best", "best epoch"], rows, last)


def values_table(values: Mapping[str, float], prefix: str) -> Any:
    """Makes a rich table of one evaluation: metric, value, and each baseline beside it."""
    rows = {name: [_number(value)] for name, value in metrics(values, prefix).items()}
    return _table({"val/": "Validation", "test/": "Test"}[prefix], ["value"], rows, values)


def next_commands(
    folder: str,
    checkpoint: ModelCheckpoint | None,
    with_logger: bool = True,
    with_predict: bool = True,
    best: Best | None = None,
) -> list[str]:
    """Lists where the checkpoint is, and which commands use it; a file that is gone is not named.

    Args:
        folder: of the run.
        checkpoint: what has saved.
        with_logger: whether there is something for TensorBoard.
        with_predict: whether the model can embed data.
        best: the best values of the run, to say whether the checkpoint has the best.
    """
    lines = []
    path = None if checkpoint is None else _saved_file(checkpoint)
    if checkpoint is not None and path is not None:
        # A trainer made in Python, not by the command, has no config.
        config = f"{folder}/config.yaml"
        options = shlex.join(["-c", config if Path(config).exists() else "CONFIG", "--ckpt_path", path])
        chosen = _score(checkpoint, best or {}) if path == checkpoint.best_model_path else ""
        lines += [
            f"Checkpoint{chosen}: {path}",
            f"Measure it:  lightning test {options}",
        ]
        if with_predict:
            lines.append(f"Embed data:  lightning predict {options}")
    if with_logger:
        lines.append(f"Look at it:  tensorboard --logdir {shlex.quote(folder)}")
    return lines


def _saved_file(checkpoint: ModelCheckpoint) -> str | None:
    """Finds the best or else the last file that it has saved and that is there."""
    paths = (checkpoint.best_model_path, checkpoint.last_model_path)
    return next((path for path in paths if path and (not is_local(path) or Path(local_path(path)).is_file())), None)


def _score(checkpoint: ModelCheckpoint, best: Best) -> str:
    """Says what the best checkpoint has; the file of a better one may be gone, or was never written."""
    name, score = checkpoint.monitor, checkpoint.best_model_score
    if name is None or score is None:
        return ""
    return f" (best {name})" if best.get(name, (None,))[0] == float(score) else f" ({name} {float(score):.3f})"


def _table(title: str, columns: list[str], rows: Mapping[str, list[str]], values: Mapping[str, float]) -> Any:
    from rich.table import Table  # only a run's end needs it

    table = Table(title=f"{title} (baselines: what needs no training of this model)")
    baselines = baselines_among(values)
    table.add_column("metric", no_wrap=True)  # a name that is cut tells nothing; headings break between words
    for heading in (*columns, *(f"baseline: {baseline.replace('_', ' ')}" for baseline in baselines)):
        table.add_column(heading, justify="right")
    for name, cells in sorted(rows.items()):
        if re.search("/(single|several)/", name):  # of another way to predict: logged, but too much for a table
            continue
        cells = [*cells, *(_number(values.get(baseline_metric(name, baseline))) for baseline in baselines)]
        table.add_row(name.partition("/")[2], *cells)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _print_values(trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
    if trainer.is_global_zero:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        _print_table(trainer, pl_module, values_table(values, prefix))


def _print_table(trainer: Trainer, pl_module: LightningModule, table: Any) -> None:
    from rich.console import Console

    if trainer.progress_bar_callback is not None:  # it would be drawn again below the table
        trainer.progress_bar_callback.teardown(trainer, pl_module, stage=trainer.state.fn or "")
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)  # a log file has no width; names must not be cut
    console.print(table)
