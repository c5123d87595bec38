"""The card's own rates, by plain products and copies; what a step of the manifold then needs at least."""

import time
from collections.abc import Callable
from functools import partial

import torch
from paper_sizes.steps import device, wait
from paper_sizes.work import step_work

from gpu_parts.inputs import Inputs
from gpu_parts.process import Report


def run(inputs: Inputs, report: Report) -> None:
    """Measure, then count a step's work."""
    sizes, place = inputs.sizes, device()
    rates = {}
    for name, precision, dtype in (
        ("bf16", "highest", torch.bfloat16),
        ("tf32", "high", torch.float32),
        ("float32", "highest", torch.float32),
    ):
        torch.set_float32_matmul_precision(precision)
        a, b = torch.randn(2, sizes.product, sizes.product, device=place, dtype=dtype)
        rates[name] = 2 * sizes.product**3 / _seconds(partial(torch.matmul, a, b))
        report(**{f"{name}_tflop_s": rates[name] / 1e12})
    source = torch.randn(sizes.copied // 4, device=place)
    target = torch.empty_like(source)
    bandwidth = 2 * sizes.copied / _seconds(lambda: target.copy_(source))
    report(copy_tb_s=bandwidth / 1e12)
    mixed = step_work(sizes.manifold, sizes.widths, sizes.batch_size)
    report(
        bf16_gflop_a_step=mixed.count.bf16_flops / 1e9,
        float32_gflop_a_step=mixed.count.float32_flops / 1e9,
        weight_gb_a_step=mixed.weight_bytes / 1e9,
        lower_bound_ms=mixed.lower_bound_seconds(rates["bf16"], rates["float32"], bandwidth) * 1e3,
    )
    single = step_work(sizes.manifold, sizes.widths, sizes.batch_size, bf16=False)
    for name in ("tf32", "float32"):
        report(**{f"{name}_lower_bound_ms": single.lower_bound_seconds(rates["bf16"], rates[name], bandwidth) * 1e3})


def _seconds(action: Callable[[], object], repeats: int = 10) -> float:
    for _ in range(3):
        action()
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        action()
    wait()
    return (time.perf_counter() - start) / repeats
