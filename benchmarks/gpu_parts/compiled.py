"""A step of the manifold with ``compile_model: true``, bf16, through Lightning; how long compiling takes."""

import statistics
import time

import torch
from lightning.pytorch import Callback
from paper_sizes.steps import lightning_steps, wait

from gpu_parts.inputs import Inputs, peak_memory, reset_peak_memory, step_figures
from gpu_parts.process import Report


class CompileTime(Callback):
    """Reports how long the first steps take, in which both turns are compiled.

    Args:
        report: takes the figure.
        steps: number of first steps.
    """

    def __init__(self, report: Report, steps: int) -> None:
        self.report, self.steps = report, steps
        self._start = 0.0

    def on_train_start(self, *_: object) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        """Report after the last of them."""
        self.steps -= 1
        if self.steps == 0:
            wait()
            self.report(compile_seconds=time.perf_counter() - self._start)


def run(inputs: Inputs, report: Report) -> None:
    """Compile and time in one run."""
    if inputs.smoke:
        torch.compiler.set_stance("force_eager")  # the way there, without the minutes of a compiler
    data, known = inputs.pairs(report), inputs.known
    reset_peak_memory()
    module, compiling = inputs.manifold(compile_model=True), CompileTime(report, steps=2)
    seconds = statistics.median(lightning_steps(data, inputs.sizes.pace, [compiling], module, "bf16-mixed"))
    report(**step_figures(seconds, known.get("card", {}).get("lower_bound_ms")), **peak_memory())
    if eager := known.get("manifold", {}).get("ms_a_step"):
        report(eager_over_compiled=eager / (seconds * 1e3))
