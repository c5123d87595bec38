"""What Lightning costs: a step through it against a bare loop of the same calls, bf16 and float32."""

import statistics

from paper_sizes.steps import Precision, bare_steps
from step_overhead import GOAL

from gpu_parts.inputs import Inputs
from gpu_parts.process import Report


def run(inputs: Inputs, report: Report) -> None:
    """Time both in turns."""
    data, sizes = inputs.pairs(report, residency="memory"), inputs.sizes
    data.setup("fit")
    precisions: dict[str, Precision] = {"bf16": "bf16-mixed", "float32": "32-true"}
    for name, precision in precisions.items():
        bare, ours = [], []
        for _ in range(sizes.turns):
            bare += bare_steps(data, sizes.pace, inputs.manifold(), precision)
            ours += inputs.time_manifold(data, precision)
        bare_ms, ours_ms = (statistics.median(seconds) * 1e3 for seconds in (bare, ours))
        figures = {"bare_ms_a_step": bare_ms, "lightning_ms_a_step": ours_ms, "ratio": ours_ms / bare_ms}
        report(**{f"{name}_{key}": value for key, value in figures.items()})
    report(goal=GOAL)
