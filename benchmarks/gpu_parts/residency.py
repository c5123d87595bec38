"""Rows on the GPU (``residency: device``) against rows in memory, and against streaming: ms a step, bf16, eager."""

import statistics

from gpu_parts.inputs import Inputs, peak_memory, reset_peak_memory
from gpu_parts.process import Report


def run(inputs: Inputs, report: Report) -> None:
    """Time each through Lightning."""
    for residency in ("memory", "stream", "device"):
        reset_peak_memory()
        seconds = inputs.time_manifold(inputs.pairs(report, residency=residency))
        figures = {"ms_a_step": statistics.median(seconds) * 1e3, **peak_memory()}
        report(**{f"{residency}_{key}": value for key, value in figures.items()})
