"""Paired divergence: do a generated sound and its reference fall into the same classes?"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lightning_ss2a.metrics.functional.checks import check_pairs

ACTIVATIONS = ("softmax", "sigmoid")


def row_divergence(
    generated: Tensor, reference: Tensor, activation: Literal["softmax", "sigmoid"] = "softmax"
) -> Tensor:
    """Computes KL(reference ‖ generated) of each row, ``[B, L], [B, L] -> [B]`` float64; see :func:`paired_kl`."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    check_pairs(generated=generated, reference=reference)
    log_q, log_p = (
        F.log_softmax(logits.double(), 1) if activation == "softmax" else F.logsigmoid(logits.double())
        for logits in (generated, reference)
    )
    return (log_p.exp() * (log_p - log_q)).sum(1)


def paired_kl(
    generated: Tensor,
    reference: Tensor,
    activation: Literal["softmax", "sigmoid"] = "softmax",
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    r"""Computes the divergence of generated sounds' class distributions from those of their references, in nats.

    .. math:: \mathrm{KL}(p_{ref} \| p_{gen}) = \sum_l p_{ref,l} \log \frac{p_{ref,l}}{p_{gen,l}}

    The direction is that of av-benchmark and AudioGen: a class of the reference that the generated sound lacks is
    dear, one that it adds is cheap.

    Args:
        generated: class logits of generated sounds, ``[B, L]``.
        reference: class logits of their references, ``[B, L]``.
        activation: how logits become probabilities. ``softmax``: a distribution over classes. ``sigmoid``: each class
            by itself, the same sum, as av-benchmark's ``kl_sigmoid`` has it; it is no divergence, since the classes'
            complements are left out, and may be below 0.
        reduction: ``mean`` over rows, or ``none``.

    Returns:
        Nats, float32: a scalar (NaN where there is no row), or ``[B]`` with ``none``. At least 0 with ``softmax``.

    Raises:
        ValueError: If the shapes differ, are not two-dimensional, or an option is out of range.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import paired_kl
        >>> reference, generated = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
        >>> paired_kl(generated, reference)  # log(2) / 2 + log(2 / 3) / 2
        tensor(0.1438)
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    divergence = row_divergence(generated, reference, activation)
    return (divergence.mean() if reduction == "mean" else divergence).float()
