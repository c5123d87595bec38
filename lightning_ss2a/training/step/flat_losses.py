"""Losses as a compiled function of flat parameters and a batch, with their gradients."""

from collections.abc import Callable, Sequence
from types import FunctionType, MethodType

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_ss2a.training.step.flat_adamw import FlatParameters

Inputs = dict[str, Tensor]
Terms = dict[str, Tensor]
Losses = Callable[[Inputs], Terms]
"""Tensors of a batch to ``loss``, which is minimised, and the terms that it is made of, scalars by name."""


class FlatLosses:
    """Losses of a network, and their gradients by buffers of its parameters.

    The network reads its weights off the buffers, so that a backward pass leaves one gradient for each buffer instead
    of one for each parameter. Losses and gradients are one compiled region for each way in which ``losses`` is called:
    for other shapes and other inputs it is compiled anew. What the compiler cannot trace, such as collectives and
    chunked losses, splits it.

    Args:
        network: whose parameters lie in the buffers.
        losses: of the network; reads nothing that changes from step to step but its inputs and the network.
        moved: buffers to differentiate by.
        still: buffers of other parameters of the network; those in no buffer are read where they are.
    """

    def __init__(
        self, network: nn.Module, losses: Losses, moved: Sequence[FlatParameters], still: Sequence[FlatParameters] = ()
    ) -> None:
        self._losses = _LossesOf(network, losses)
        self.moved, self.still = list(moved), list(still)
        names = {id(parameter): name for name, parameter in self._losses.named_parameters()}
        self._names = [[names[id(p)] for p in flat.parameters] for flat in (*moved, *still)]
        # Each batch has the same shape, and a compiler that allows for others makes slower code.
        own = MethodType(_own_code(FlatLosses._terms_and_gradients), self)
        self._compiled = _trace_gradients(torch.compile(own, dynamic=False))

    def __call__(self, inputs: Inputs) -> tuple[Terms, list[Tensor]]:
        """Computes the detached terms, and the gradients of ``loss`` by each of ``moved``."""
        values = [flat.values for flat in self.moved]
        return self._compiled(values, [flat.values.detach() for flat in self.still], inputs)

    def _terms_and_gradients(
        self, moved: list[Tensor], still: list[Tensor], inputs: Inputs
    ) -> tuple[Terms, list[Tensor]]:
        weights: dict[str, Tensor] = {}
        for flat, names, values in zip((*self.moved, *self.still), self._names, (*moved, *still), strict=True):
            weights |= zip(names, flat.split(values), strict=True)
        terms = functional_call(self._losses, weights, (inputs,))
        # Traced under autocast, the backward pass of what was kept out of it would be cast down.
        with torch.autocast(moved[0].device.type, enabled=False):
            gradients = torch.autograd.grad(terms["loss"], moved)
        return {name: term.detach() for name, term in terms.items()}, list(gradients)


def _trace_gradients(compiled: Callable) -> Callable:
    """Lets the compiler follow ``torch.autograd.grad``; torch before 2.11 compiles losses and gradients apart."""
    from torch._dynamo import config  # whose import takes a second, which an eager run is spared

    return config.patch(trace_autograd_ops=True)(compiled) if hasattr(config, "trace_autograd_ops") else compiled


def _own_code(function: Callable) -> Callable:
    """Copies a function with its code: torch keeps at most 8 compiled variants of one code, whoever compiles it."""
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


class _LossesOf(nn.Module):
    """Losses as a module, which is what functional_call takes."""

    def __init__(self, network: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.network, self._losses = network, losses

    def forward(self, inputs: Inputs) -> Terms:
        return self._losses(inputs)
