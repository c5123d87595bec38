"""Mean cosine as a metric."""

from typing import Any

import torch
from torch import Tensor

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.cosine import row_cosine
from lightning_ss2a.metrics.functional.exact_sum import count_non_finite, from_fixed_point, to_fixed_point


class MeanCosine(ExactMetric):
    r"""Mean cosine between predicted and true embeddings, such as the reconstruction cosine.

    .. math:: \frac{1}{N} \sum_i \cos(p_i, t_i)

    As input to ``update``:

    - ``prediction``: embeddings, ``[B, D]``, any norm; B may be 0.
    - ``target``: embeddings, ``[B, D]``, any norm.

    As output of ``compute``: the mean, a float32 scalar in [-1, 1], the same bits for any split into batches and ranks;
    NaN where there is no row, or where a row holds NaN or infinity.

    Args:
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shapes of an update differ or are not two-dimensional.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import MeanCosine
        >>> metric = MeanCosine()
        >>> metric.update(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True
    scale = 1

    total: Tensor
    rows: Tensor
    broken_rows: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("total", "rows", "broken_rows"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds rows, ``[B, D]`` each."""
        self._add(row_cosine(prediction, target), prediction, target)

    def _add(self, cosines: Tensor, *rows: Tensor) -> None:
        """Adds cosines ``[B]`` of rows ``[B, ...]``, which spoil the mean where they are not finite."""
        self.total += to_fixed_point(cosines).sum()
        self.rows += len(cosines)
        self.broken_rows += count_non_finite(*rows)

    def compute(self) -> Tensor:
        """Computes the mean over all rows of all ranks."""
        mean = self.scale * from_fixed_point(self.total) / self.rows
        return mean.masked_fill(self.broken_rows > 0, torch.nan).float()
