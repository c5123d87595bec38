"""What several benchmarks share: which steps are timed, and what a step asks of a card."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_ss2a.models import ManifoldOptions
from lightning_ss2a.training import ManifoldModule

ROOT = Path(__file__).parents[2]
SMALL = ManifoldOptions(width=12, projector_widths=(16,), reconstructor_widths=(16,))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from paper_sizes import steps

    return steps


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from paper_sizes import work

    return work


@pytest.mark.parametrize(("window", "expected"), [(1, [3, 4, 5, 6]), (2, [3.5, 5.5])])
def test_clock_takes_the_mean_of_each_window(steps: ModuleType, window: int, expected: list[float]):
    pace = steps.Pace(warm_up=2, windows=len(expected), window=window)
    now = 0.0
    clock = steps.Clock(pace, lambda: now)
    assert pace.steps == 7
    for seconds in range(pace.steps):  # each step takes a second longer than the one before
        now += seconds
        clock.step()
    assert clock.seconds == expected


@pytest.mark.parametrize("bf16", [True, False])
def test_step_work_counts_what_torch_counts(work: ModuleType, bf16: bool):
    counted = work.step_work(SMALL, (20, 16), 8, bf16)
    module = ManifoldModule(20, 16, SMALL)
    batch = {"visual": torch.randn(8, 20), "audio": torch.randn(8, 16)}
    halves = (module.projector_parameters, module.reconstructor_parameters)
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for turn, losses in enumerate((module.losses, module.reconstructor_losses)):
            with work.frozen(halves[1 - turn]):
                losses(batch)["loss"].backward()
    assert counted.count.bf16_flops + counted.count.float32_flops == counter.get_total_flops()
    assert (counted.count.bf16_flops > 0) == bf16
    assert counted.parameters == sum(p.numel() for p in module.parameters())


def test_the_lower_bound_is_arithmetic_and_the_traffic_of_weights(work: ModuleType):
    step = work.StepWork(work.Count(bf16_flops=600, float32_flops=20, cast_bytes=72), parameters=1)
    assert step.lower_bound_seconds(bf16_flops=300, float32_flops=10, bytes_per_second=50) == 2 + 2 + 2
