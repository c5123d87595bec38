"""Optimiser, schedule, gradient averaging and the trainer's switches, shared by the training modules."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["constant", "cosine"]


def count_optimizer_steps(trainer: Trainer, accumulate_batches: int) -> float:
    """Optimiser steps of the whole run; the last step of an epoch may have fewer batches than the others."""
    steps = trainer.estimated_stepping_batches  # loads the training data; knows nothing of accumulate_batches
    if trainer.max_epochs == -1:
        return steps  # max_steps, which counts optimiser steps, or infinity
    by_epochs = math.ceil(trainer.num_training_batches / accumulate_batches) * max(trainer.max_epochs, 1)
    return by_epochs if trainer.max_steps == -1 else min(by_epochs, trainer.max_steps)


def build_adamw(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW that decays matrices only; biases, gains and temperatures are left alone.

    Args:
        parameters: what to optimise.
        learning_rate: peak learning rate.
        weight_decay: decoupled weight decay of the matrices, per unit of learning rate.
    """
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # One kernel for all parameters; the CPU and CUDA builds of torch both have it.
    return AdamW(groups, lr=learning_rate, fused=True)


def learning_rate_factor(step: int, warmup_steps: int, total_steps: float, schedule: Schedule) -> float:
    """Factor on the peak learning rate at a step: linear warm-up, then constant or a half cosine down to 0.

    Args:
        step: optimiser step, from 0.
        warmup_steps: steps of the linear warm-up; the first step already has 1 / warmup_steps.
        total_steps: all steps of the run; only the cosine looks at it.
        schedule: shape after the warm-up.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant" or math.isinf(total_steps):
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def build_schedule(optimizer: Optimizer, warmup_steps: int, total_steps: float, schedule: Schedule) -> LambdaLR:
    """The schedule of :func:`learning_rate_factor` as a torch scheduler, stepped once an optimiser step."""
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, warmup_steps, total_steps, schedule))


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, in one all-reduce.

    A backward pass that reaches only the projectors, or only the reconstructor, would leave DistributedDataParallel
    waiting for the other half (or need ``find_unused_parameters``, a search through the graph on every step). So the
    training modules switch its hooks off and call this on exactly the parameters that are about to be stepped.
    A run on one process returns at once.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    world_size = torch.distributed.get_world_size()
    if world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world_size
    pieces = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)])


@torch.no_grad()
def average_over_ranks(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over the ranks of scalars, in one all-reduce; the same keys on every rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    stacked = torch.stack(list(values.values()))
    torch.distributed.all_reduce(stacked)
    return dict(zip(values, stacked / torch.distributed.get_world_size(), strict=True))


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale the gradients down to a norm of at most ``max_norm`` (None: leave them) and return the norm before."""
    return nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm)
