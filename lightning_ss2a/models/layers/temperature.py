"""The learned logit scale τ of a contrastive loss (Eq. 3): where it starts and how it is kept in its bounds."""

import math
from typing import Any

import torch
from torch import Tensor, nn

INITIAL_TEMPERATURE = 1 / 0.07
MAX_LOG_TEMPERATURE = math.log(100)


def initial_log_temperature() -> nn.Parameter:
    """Makes the logarithm of τ before training, log(1 / 0.07), as a parameter."""
    return nn.Parameter(torch.tensor(math.log(INITIAL_TEMPERATURE)))


def bounded_temperature(log_temperature: Tensor) -> Tensor:
    """Returns τ in [1, 100], of the shape of its logarithm; at a bound it still learns its way back."""
    return _ClampInward.apply(log_temperature, 0.0, MAX_LOG_TEMPERATURE).exp()


class _ClampInward(torch.autograd.Function):
    """Clamp that stops only gradients which push further out; ``Tensor.clamp`` would freeze a parameter outside."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, minimum: float, maximum: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = minimum, maximum
        return value.clamp(minimum, maximum)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        minimum, maximum = ctx.bounds
        # Descent moves against the gradient: below the minimum a positive one leads further out.
        outward = ((value <= minimum) & (gradient > 0)) | ((value >= maximum) & (gradient < 0))
        return gradient.masked_fill(outward, 0), None, None
