import math

import pytest
import torch
from torch import nn

from lightning_ss2a.training.optimization import (
    OptimizationOptions,
    build_adamw,
    build_schedule,
    clip_gradients,
    learning_rate_factor,
)


def test_learning_rate_factor_warms_up_linearly_then_follows_the_cosine():
    options = OptimizationOptions(warmup_steps=4, schedule="cosine")
    factors = [learning_rate_factor(step, 14, options) for step in range(15)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert factors[14] == pytest.approx(0.0)


def test_learning_rate_factor_constant_ignores_the_length_of_the_run():
    for schedule in ("constant", "cosine"):
        assert learning_rate_factor(10_000, math.inf, OptimizationOptions(schedule=schedule)) == 1.0


def test_schedule_sets_the_rate_of_every_group():
    options = OptimizationOptions(learning_rate=0.5, weight_decay=0.1, warmup_steps=2)
    optimizer = build_adamw(nn.Linear(3, 2).parameters(), options)
    scheduler = build_schedule(optimizer, options, progress=lambda: 0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_weight_decay_touches_matrices_only():
    layer = nn.Linear(3, 2)
    optimizer = build_adamw(layer.parameters(), OptimizationOptions(learning_rate=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(layer.weight, before["weight"] * (1 - 0.1 * 0.5))
    torch.testing.assert_close(layer.bias, before["bias"])


def test_clip_gradients_reports_the_norm_before():
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([p], 1.0) == pytest.approx(5.0)
    assert p.grad.norm() == pytest.approx(1.0, abs=1e-5)
    p.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([p], None) == pytest.approx(5.0)
    assert p.grad.norm() == pytest.approx(5.0)
