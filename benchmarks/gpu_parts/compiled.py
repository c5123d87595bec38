"""A step of the manifold with ``step: compiled``, bf16, through Lightning; how long compiling takes."""

import statistics
import time

from lightning.pytorch import Callback
from paper_sizes.steps import Pace, lightning_steps, wait

from gpu_parts.inputs import Inputs, KernelTimes, peak_memory, reset_peak_memory, step_figures
from gpu_parts.process import Report
from lightning_ss2a.training.step import Step


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
    time_step(inputs, report, "compiled", first_steps=2)


def time_step(inputs: Inputs, report: Report, step: Step, first_steps: int) -> None:
    """Time a way to compute the step, and how long the first steps take, in which it is made ready."""
    data, known, pace = inputs.pairs(report), inputs.known, inputs.sizes.pace
    reset_peak_memory()
    compiling = CompileTime(report, first_steps)
    seconds = statistics.median(lightning_steps(data, pace, [compiling], inputs.manifold(step=step), "bf16-mixed"))
    report(**step_figures(seconds, known.get("card", {}).get("lower_bound_ms")), **peak_memory())
    if eager := known.get("manifold", {}).get("ms_a_step"):
        report(**{f"eager_over_{step}": eager / (seconds * 1e3)})
    kernels = KernelTimes(after=pace.warm_up, steps=inputs.sizes.profiled_steps)
    short = Pace(pace.warm_up, windows=1, window=inputs.sizes.profiled_steps)
    lightning_steps(data, short, [kernels], inputs.manifold(step=step), "bf16-mixed")
    report(**kernels.figures(seconds))
