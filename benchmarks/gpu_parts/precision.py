"""A step of the manifold in float32, and with TF32 products, through Lightning."""

import statistics

import torch

from gpu_parts.inputs import Inputs, step_figures
from gpu_parts.process import Report


def run(inputs: Inputs, report: Report) -> None:
    """Time both."""
    data, card = inputs.pairs(report), inputs.known.get("card", {})
    for name, products in (("float32", "highest"), ("tf32", "high")):
        torch.set_float32_matmul_precision(products)
        seconds = statistics.median(inputs.time_manifold(data, "32-true"))
        figures = step_figures(seconds, card.get(f"{name}_lower_bound_ms"))
        report(**{f"{name}_{key}": value for key, value in figures.items() if key != "how"})
