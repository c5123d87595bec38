"""What the mean teacher costs: without it, with its average, with the consistency loss too; bf16, eager."""

import statistics

from mean_teacher import ARMS, GOAL
from paper_sizes.steps import lightning_steps

from gpu_parts.inputs import Inputs
from gpu_parts.process import Report


def run(inputs: Inputs, report: Report) -> None:
    """Time them in turns."""
    data, sizes = inputs.pairs(report), inputs.sizes
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    for _ in range(sizes.turns):
        for name, callbacks in ARMS.items():
            seconds[name] += lightning_steps(data, sizes.pace, callbacks(), inputs.manifold(), "bf16-mixed")
    for name, values in seconds.items():
        report(**{f"{name.replace(' ', '_')}_ms_a_step": statistics.median(values) * 1e3})
    without, average = (statistics.median(seconds[name]) for name in ("without", "average"))
    report(throughput_ratio=without / average, goal=GOAL)
