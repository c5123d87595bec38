"""A mean teacher: a frozen copy of a network that follows it as an exponential moving average.

Source: Tarvainen and Valpola, "Mean teachers are better role models" (2017).
"""

import copy
from collections import OrderedDict
from typing import Literal, TypeVar

import torch
from torch import nn

DecaySchedule = Literal["constant", "warmup"]
Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(network: Network) -> Network:
    """Makes a copy that takes no gradients, drops no units and calls no hooks, whatever mode its parent module is in.

    Hooks belong to what is watched; those of a profiler cannot even be copied. Dropout is set to 0 rather than left to
    ``eval()``: a ``train()`` of the module that holds the copy, which Lightning calls too, would bring it back.
    """
    hooks = [h for module in network.modules() for h in (module._forward_pre_hooks, module._forward_hooks)]
    frozen = copy.deepcopy(network, {id(found): OrderedDict() for found in hooks}).requires_grad_(False)
    for module in frozen.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return frozen


def ema_decay(updates: int, decay: float, schedule: DecaySchedule) -> float:
    """Computes the decay of the next update.

    Args:
        updates: updates done so far, t.
        decay: d, in [0, 1].
        schedule: ``constant``: d; ``warmup``: min(d, (1 + t) / (10 + t)), so that a young teacher follows fast.
    """
    return decay if schedule == "constant" else min(decay, (1 + updates) / (10 + updates))


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Moves the teacher to decay * teacher + (1 - decay) * student, all parameters in one fused call; copies buffers.

    Args:
        teacher: moves, in place.
        student: a network of the same architecture.
        decay: in [0, 1]; 1 leaves the teacher as it is.
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - decay)
    if buffers := list(teacher.buffers()):
        torch._foreach_copy_(buffers, list(student.buffers()))


@torch.no_grad()
def relative_distance(teacher: nn.Module, student: nn.Module) -> torch.Tensor:
    """Divides the norm of the difference of all parameters by that of the student's, a scalar."""
    ours: list[torch.Tensor] = list(student.parameters())
    theirs: list[torch.Tensor] = list(teacher.parameters())
    difference = torch._foreach_norm(torch._foreach_sub(ours, theirs))
    return torch.stack(difference).norm() / torch.stack(torch._foreach_norm(ours)).norm()
