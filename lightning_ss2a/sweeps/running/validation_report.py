"""What a trial's validations were, and whether it is to go on."""

import math
from collections.abc import Callable, Mapping

from lightning.pytorch import Callback, LightningModule, Trainer

Report = Callable[[int, float], bool]
"""Takes epochs done and a value, tells whether to stop."""


class ValidationReport(Callback):
    """Keeps the best validation of some metrics; reports one, and stops the run when told to.

    Every rank of a run has one and they stop together; rank zero alone reports.

    Args:
        best_of: metrics whose best value is kept, and whether more is better.
        reported: metric to report at each validation; None: none.
        report: asks whether to stop; None: another rank does.
    """

    def __init__(self, best_of: Mapping[str, bool], reported: str | None, report: Report | None) -> None:
        self.best: dict[str, float] = {}
        self.pruned = False
        self._best_of, self._reported, self._report = dict(best_of), reported, report

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the values; callback_metrics has them from here on."""
        if trainer.sanity_checking:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for name, maximize in self._best_of.items():
            value, best = values.get(name, math.nan), self.best.get(name, math.nan)
            if not math.isnan(value) and (math.isnan(best) or (value > best if maximize else value < best)):
                self.best[name] = value
        if self._reported is not None and trainer.state.fn == "fit":
            self._ask(trainer, values.get(self._reported, math.nan))

    def _ask(self, trainer: Trainer, value: float) -> None:
        stop = False
        if self._report is not None and trainer.is_global_zero and not math.isnan(value):
            stop = self._report(trainer.current_epoch + 1, value)
        if trainer.strategy.broadcast(stop):
            self.pruned = trainer.should_stop = True
