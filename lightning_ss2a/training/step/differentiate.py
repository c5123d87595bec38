"""Chooses how the gradients of a step are computed, where it is not eagerly."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_ss2a.training.step import Step
from lightning_ss2a.training.step.flat_losses import FlatLosses, Inputs, Terms
from lightning_ss2a.training.step.graph import CudaRecorder, Recorder, Replayed, StandIn

Differentiate = Callable[[Inputs], tuple[Terms, list[Tensor]]]
"""Inputs of the losses to their detached terms, and the gradients of ``loss`` by each buffer of parameters."""


def differentiate(losses: FlatLosses, step: Step, device: torch.device) -> Differentiate:
    """Makes what computes terms and gradients of a batch.

    Args:
        losses: of flat parameters.
        step: ``compiled``, or ``graph``: captured and replayed; on a CPU the same code runs without a graph.
        device: where the parameters are.
    """
    if step == "compiled":
        return losses
    recorder: Recorder = CudaRecorder() if device.type == "cuda" else StandIn()
    return Replayed(losses, recorder)
