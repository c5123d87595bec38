"""Paired divergence of class distributions as a metric."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.paired_kl import ACTIVATIONS, row_divergence


class PairedKL(ExactMetric):
    r"""Divergence of generated sounds' class distributions from those of their references, in nats.

    .. math:: \frac{1}{N} \sum_i \mathrm{KL}(p_{ref,i} \| p_{gen,i})

    See :func:`~lightning_ss2a.metrics.functional.paired_kl` for the direction and the activations.

    As input to ``update``:

    - ``generated``: class logits of generated sounds, ``[B, L]``; B may be 0.
    - ``reference``: class logits of their references, ``[B, L]``.

    As output of ``compute``: nats, a float32 scalar, the same to rounding of float64 for any split into batches and
    ranks; NaN where there is no row.

    Args:
        activation: how logits become probabilities, ``softmax`` or ``sigmoid``.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shapes of an update differ, are not two-dimensional, or the activation is unknown.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import PairedKL
        >>> metric = PairedKL()
        >>> metric.update(generated=torch.tensor([[0.25, 0.75]]).log(), reference=torch.tensor([[0.5, 0.5]]).log())
        >>> metric.compute()
        tensor(0.1438)
    """

    higher_is_better = False

    total: Tensor
    rows: Tensor

    def __init__(self, activation: Literal["softmax", "sigmoid"] = "softmax", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = activation
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, generated: Tensor, reference: Tensor) -> None:
        """Adds rows, ``[B, L]`` each."""
        self.total += row_divergence(generated, reference, self.activation).sum()
        self.rows += len(generated)

    def compute(self) -> Tensor:
        """Computes the mean over all rows of all ranks."""
        return (self.total / self.rows).float()
