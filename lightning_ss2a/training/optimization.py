"""Optimiser, schedule, gradient averaging and the trainer's switches, shared by the training modules."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_ss2a.options import OptionCheck
from lightning_ss2a.training.step.flat_adamw import FlatAdamW, PlainAdamW

Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class OptimizationOptions:
    """Options of AdamW and of its learning rate.

    Args:
        learning_rate: peak learning rate of AdamW, at least 0.
        weight_decay: decoupled weight decay of the weight matrices, per unit of learning rate, at least 0.
        warmup_steps: optimiser steps of linear warm-up; the first step already has 1 / warmup_steps of the rate.
        schedule: learning rate after the warm-up: ``constant``, or ``cosine``, half a wave down to 0, which follows the
            part of ``max_epochs`` that is done (in both stages of an EMATeacher).
    """

    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 0
    schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        check = OptionCheck("model.optimization")
        check.at_least(0, learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        check.at_least(0, warmup_steps=self.warmup_steps)
        check.one_of(get_args(Schedule), schedule=self.schedule)


@dataclass(frozen=True)
class AlternatingOptimizationOptions(OptimizationOptions):
    """Options of two optimisers that step in turn, which the trainer's own switches do not reach.

    Args:
        gradient_clip_norm: largest gradient norm, for the projectors and for the reconstructor; null: no clipping.
        accumulate_batches: batches whose gradients are averaged into one step, at least 1. Negatives stay within a
            batch.
    """

    gradient_clip_norm: float | None = None
    accumulate_batches: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check = OptionCheck("model.optimization")
        check.at_least(0, gradient_clip_norm=self.gradient_clip_norm)
        check.at_least(1, accumulate_batches=self.accumulate_batches)


def run_progress(trainer: Trainer, accumulate_batches: int) -> float:
    """Tells which part of a run is done, in [0, 1]; 0 where nothing bounds the run.

    Epochs count alike, however many batches each has: a mean teacher's first stage has shorter ones than the second,
    and how many rows a filter will leave is not known beforehand.

    Args:
        trainer: a trainer that fits, in a batch that ends an optimiser step.
        accumulate_batches: batches a step; the last step of an epoch may have fewer.
    """
    by_epochs = by_steps = 0.0
    epochs = trainer.max_epochs or 0
    if epochs > 0:
        batches_done = trainer.fit_loop.epoch_loop.batch_idx + 1
        steps = [math.ceil(n / accumulate_batches) for n in (batches_done, trainer.num_training_batches)]
        by_epochs = (trainer.current_epoch + steps[0] / steps[1]) / epochs
    if trainer.max_steps > 0:
        by_steps = trainer.global_step / trainer.max_steps
    return min(1.0, max(by_epochs, by_steps))


def build_adamw(parameters: Iterable[nn.Parameter], options: OptimizationOptions, flat: bool = False) -> AdamW:
    """Makes an AdamW that decays matrices only; biases, gains and temperatures are left alone.

    Args:
        parameters: what it optimises.
        options: its options.
        flat: lay the parameters side by side, see :class:`FlatAdamW`.
    """
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if flat:
        return FlatAdamW(groups, lr=options.learning_rate)
    # One kernel for all parameters; the CPU and CUDA builds of torch both have it.
    return PlainAdamW(groups, lr=options.learning_rate, fused=True)


def learning_rate_factor(step: int, total_steps: float, options: OptimizationOptions) -> float:
    """Computes the factor on the peak learning rate at a step: linear warm-up, then constant or half a cosine to 0.

    Args:
        step: optimiser step, from 0.
        total_steps: all steps of the run; only the cosine looks at it.
        options: warm-up, and the shape after it.
    """
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    if options.schedule == "constant" or math.isinf(total_steps):
        return 1.0
    progress = min(1.0, (step - options.warmup_steps) / max(1, total_steps - options.warmup_steps))
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def build_schedule(optimizer: Optimizer, options: OptimizationOptions, progress: Callable[[], float]) -> LambdaLR:
    """Makes a torch scheduler of :func:`learning_rate_factor`, stepped once an optimiser step.

    All steps of the run are those done over the part of it that is done; ``progress`` tells that part.
    """

    def factor(step: int) -> float:
        done = progress() if step else 0.0
        return learning_rate_factor(step, step / done if done else math.inf, options)

    return LambdaLR(optimizer, factor)


def optimized_tensors(optimizer: Optimizer) -> list[Tensor]:
    """Lists what an optimiser moves."""
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]


@torch.no_grad()
def add_gradients(tensors: Sequence[Tensor], gradients: Sequence[Tensor], scale: float = 1.0) -> None:
    """Adds gradients, times ``scale``, to what the tensors have; where they have none, takes the gradients over."""
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if scale != 1.0:
            gradient = gradient * scale
        tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient


def part_parameters(optimizers: Iterable[Optimizer]) -> None:
    """Gives parameters that lie side by side in buffers of optimisers memory of their own: after a run."""
    for optimizer in optimizers:
        for flat in optimizer.filled if isinstance(optimizer, FlatAdamW) else ():
            flat.part()


def leave_gradients_to_us(strategy: Strategy) -> None:
    """Tells DistributedDataParallel that no backward pass will reach its hooks: see :func:`average_gradients`."""
    if isinstance(strategy.model, DistributedDataParallel):
        strategy.model.require_backward_grad_sync = False


@torch.no_grad()
def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replaces every gradient by its mean over the ranks, in one all-reduce.

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
    """Averages scalars over the ranks, in one all-reduce; the same keys on every rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    stacked = torch.stack(list(values.values()))
    torch.distributed.all_reduce(stacked)
    return dict(zip(values, stacked / torch.distributed.get_world_size(), strict=True))


def clip_gradients(parameters: Sequence[Tensor], max_norm: float | None) -> Tensor:
    """Scales the gradients down to a norm of at most ``max_norm`` (None: leaves them); returns the norm before."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
