"""Partition coefficient as a metric."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.checks import check_groups, check_rows
from lightning_ss2a.metrics.functional.clustering import VARIANTS, partition_coefficient
from lightning_ss2a.metrics.functional.moments import in_content_order
from lightning_ss2a.metrics.gather import gather_ragged


class PartitionCoefficient(ExactMetric):
    r"""Partition coefficient of embeddings in known classes (Eq. 13).

    .. math:: \frac{1}{N} \sum_{i=1}^N \sum_{j=1}^M u_{ij}^2, \quad u_{ij} = \frac{1 + \cos(x_i, c_j)}{2}

    See :func:`~lightning_ss2a.metrics.functional.partition_coefficient` for what it says and what it does not.

    As input to ``update``:

    - ``embedding``: embeddings, ``[B, D]``, any norm; B may be 0.
    - ``class_index``: class of each, ``[B]`` int64 from 0.

    As output of ``compute``: the coefficient, a float32 scalar in [0, M], the same bits for any order and any split
    into batches and ranks; NaN where there is no row. All embeddings are kept in float64 until ``reset``.

    Args:
        variant: ``paper``, or ``published`` for what the authors' code computes.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shapes of an update do not fit, or an option is unknown.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import PartitionCoefficient
        >>> metric = PartitionCoefficient()
        >>> metric.update(torch.eye(2), torch.tensor([0, 1]))
        >>> metric.compute()
        tensor(1.2500)
    """

    higher_is_better = True

    labelled: list[Tensor]

    def __init__(self, variant: Literal["paper", "published"] = "paper", **kwargs: Any) -> None:
        super().__init__(**{"dist_sync_fn": gather_ragged, **kwargs})
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        self.variant = variant
        self.add_state("labelled", [], dist_reduce_fx="cat")

    def update(self, embedding: Tensor, class_index: Tensor) -> None:
        """Adds rows: embeddings ``[B, D]``, classes ``[B]``."""
        self.labelled.extend(labelled_rows(embedding, class_index=class_index))

    def compute(self) -> Tensor:
        """Computes the coefficient of all rows of all ranks."""
        if len(self.labelled) == 0:
            return torch.full((), torch.nan, device=self.device)
        rows = in_content_order(dim_zero_cat(self.labelled))
        return partition_coefficient(rows[:, 1:], rows[:, 0].long(), self.variant)


def labelled_rows(embedding: Tensor, **group: Tensor) -> list[Tensor]:
    """Returns checked rows with the number of their group before them, float64 ``[B, 1 + D]``; nothing for none."""
    check_rows(embedding=embedding)
    check_groups(len(embedding), None, **group)
    (number,) = group.values()
    return [torch.cat([number.unsqueeze(1).double(), embedding.detach().double()], 1)] if len(embedding) else []
