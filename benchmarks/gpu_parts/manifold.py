"""A step of the manifold at the paper's sizes, bf16, eager, through Lightning: ms, GPU busy share, peak memory."""

import statistics

from paper_sizes.steps import Pace, lightning_steps

from gpu_parts.inputs import Inputs, KernelTimes, peak_memory, reset_peak_memory, step_figures
from gpu_parts.process import Report


def run(inputs: Inputs, report: Report) -> None:
    """Time the steps, then look at the kernels of a few more."""
    sizes = inputs.sizes
    data = inputs.pairs(report)
    reset_peak_memory()
    seconds = statistics.median(inputs.time_manifold(data))
    report(**step_figures(seconds, inputs.known.get("card", {}).get("lower_bound_ms")), **peak_memory())
    kernels = KernelTimes(after=sizes.pace.warm_up, steps=sizes.profiled_steps)
    pace = Pace(sizes.pace.warm_up, windows=1, window=sizes.profiled_steps)
    lightning_steps(data, pace, [kernels], inputs.manifold(), "bf16-mixed")
    report(**kernels.figures(seconds))
