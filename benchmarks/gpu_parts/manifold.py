"""A step of the manifold at the paper's sizes, bf16, eager, through Lightning: ms, GPU busy share, peak memory."""

import statistics
from collections.abc import Sequence

from lightning.pytorch import Callback
from paper_sizes.steps import Pace, lightning_steps

from gpu_parts.inputs import Inputs, KernelTimes, peak_memory, reset_peak_memory, step_figures
from gpu_parts.process import Report
from lightning_ss2a.training.step import Step


def run(inputs: Inputs, report: Report) -> None:
    """Time the steps, then look at the kernels of a few more."""
    time_step(inputs, report, "eager")


def time_step(inputs: Inputs, report: Report, step: Step, callbacks: Sequence[Callback] = ()) -> None:
    """Time a way to compute the step, against the eager one if that was timed; then look at the kernels of a few more.

    Args:
        inputs: what the part is given.
        report: takes the figures.
        step: how it is computed.
        callbacks: of the run that is timed.
    """
    data, known, sizes = inputs.pairs(report), inputs.known, inputs.sizes
    reset_peak_memory()
    seconds = statistics.median(lightning_steps(data, sizes.pace, callbacks, inputs.manifold(step=step), "bf16-mixed"))
    report(**step_figures(seconds, known.get("card", {}).get("lower_bound_ms")), **peak_memory())
    if eager := known.get("manifold", {}).get("ms_a_step"):
        report(**{f"eager_over_{step}": eager / (seconds * 1e3)})
    kernels = KernelTimes(after=sizes.pace.warm_up, steps=sizes.profiled_steps)
    pace = Pace(sizes.pace.warm_up, windows=1, window=sizes.profiled_steps)
    lightning_steps(data, pace, [kernels], inputs.manifold(step=step), "bf16-mixed")
    report(**kernels.figures(seconds))
