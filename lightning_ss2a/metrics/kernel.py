"""Kernel audio distance (KAD) as a metric."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.checks import check_rows
from lightning_ss2a.metrics.functional.kernel import check_kernel_options, kernel_audio_distance
from lightning_ss2a.metrics.gather import gather_ragged


class KernelAudioDistance(ExactMetric):
    r"""Unbiased squared maximum mean discrepancy of generated and real sounds, from embeddings of both, times 100.

    See :func:`~lightning_ss2a.metrics.functional.kernel_audio_distance` for the formula. FAD takes both sets for normal
    and is biased in small ones; KAD does neither.

    As input to ``update``, at least one of:

    - ``generated``: embeddings of generated sounds, ``[B, D]``; B may be 0.
    - ``reference``: embeddings of real sounds, ``[B, D]``, of any other number.

    As output of ``compute``: the distance, a float32 scalar, the same bits for any order and any split into batches and
    ranks; NaN where a set has fewer than 2 rows or half of the reference's rows are equal.

    All embeddings are kept in float32 until ``reset`` (4 * D bytes a sound), the kernel's values never at once.

    Args:
        bandwidth: standard deviation of the kernel; None: the median distance between rows of the reference.
        bandwidth_rows: where the reference has more rows, so many of them give the median.
        subset_rows: where given, the mean over subsets of so many rows of each set, which is cheaper; None: all rows.
        subsets: subsets, drawn without replacement.
        seed: seed of the subsets, and of the rows that give the median.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the widths differ, a set is not two-dimensional, or an option is out of range.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import KernelAudioDistance
        >>> metric = KernelAudioDistance()
        >>> reference = torch.tensor([[0.0], [2.0]])
        >>> metric.update(generated=reference + 100, reference=reference)
        >>> metric.compute()
        tensor(121.3061)
    """

    higher_is_better = False

    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(
        self,
        bandwidth: float | None = None,
        bandwidth_rows: int = 5000,
        subset_rows: int | None = None,
        subsets: int = 10,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dist_sync_fn": gather_ragged, **kwargs})
        check_kernel_options(bandwidth, bandwidth_rows, subset_rows, subsets)
        self.options: dict[str, Any] = {
            "bandwidth": bandwidth,
            "bandwidth_rows": bandwidth_rows,
            "subset_rows": subset_rows,
            "subsets": subsets,
            "seed": seed,
        }
        for side in ("generated", "reference"):
            self.add_state(side, [], dist_reduce_fx="cat")

    def update(self, generated: Tensor | None = None, reference: Tensor | None = None) -> None:
        """Adds rows, ``[B, D]``, to one set or to both."""
        sets = {name: rows for name, rows in (("generated", generated), ("reference", reference)) if rows is not None}
        if not sets:
            raise ValueError("update needs generated, reference or both")
        check_rows(**sets)
        for name, rows in sets.items():
            if len(rows):
                getattr(self, name).append(rows.detach().float())

    def compute(self) -> Tensor:
        """Computes the distance between all rows of all ranks."""
        if len(self.generated) == 0 or len(self.reference) == 0:
            return torch.full((), torch.nan, device=self.device)
        return kernel_audio_distance(dim_zero_cat(self.generated), dim_zero_cat(self.reference), **self.options)
