"""Modality gap as a metric."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.exact_sum import count_non_finite, from_fixed_point, to_fixed_point
from lightning_ss2a.metrics.functional.modality_gap import unit_difference
from lightning_ss2a.metrics.gather import gather_ragged


class ModalityGap(ExactMetric):
    r"""Distance between the means of the two modalities' unit vectors.

    .. math:: \left\| \frac{1}{N} \sum_i \frac{v_i}{\|v_i\|} - \frac{1}{N} \sum_i \frac{a_i}{\|a_i\|} \right\|

    As input to ``update``:

    - ``visual_embedding``: embeddings of the visuals, ``[B, D]``, any norm; B may be 0.
    - ``audio_embedding``: embeddings of the matching audio, ``[B, D]``, any norm.

    As output of ``compute``: the gap, a float32 scalar in [0, 2], the same bits for any split into batches and ranks;
    NaN where there is no row, or where a row holds NaN or infinity. A small gap is no aim in itself: a collapsed
    manifold has none.

    Args:
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shapes of an update differ or are not two-dimensional.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import ModalityGap
        >>> metric = ModalityGap()
        >>> metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]]))
        >>> metric.compute()
        tensor(2.)
    """

    higher_is_better = False

    difference: list[Tensor]
    rows: Tensor
    broken_rows: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dist_sync_fn": gather_ragged, **kwargs})
        # One running sum [1, D] in a list, since D is known at the first update only.
        self.add_state("difference", [], dist_reduce_fx="cat")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("broken_rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, visual_embedding: Tensor, audio_embedding: Tensor) -> None:
        """Adds rows, ``[B, D]`` each."""
        difference = to_fixed_point(unit_difference(visual_embedding, audio_embedding)).sum(0, keepdim=True)
        self.difference = [sum(self.difference, start=difference)]
        self.rows += len(visual_embedding)
        self.broken_rows += count_non_finite(visual_embedding, audio_embedding)

    def compute(self) -> Tensor:
        """Computes the gap over all rows of all ranks."""
        if self.rows == 0:
            return torch.full((), torch.nan, device=self.device)
        mean = from_fixed_point(dim_zero_cat(self.difference).sum(0)) / self.rows
        return mean.norm().masked_fill(self.broken_rows > 0, torch.nan).float()
