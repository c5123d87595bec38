"""Discriminant test as a metric."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.clustering import labelled_rows
from lightning_ss2a.metrics.functional.discriminant import Discriminant, check_options, discriminant_test
from lightning_ss2a.metrics.functional.moments import in_content_order
from lightning_ss2a.metrics.gather import gather_ragged


class DiscriminantTest(ExactMetric):
    """How well a wide linear discriminant tells groups of embeddings apart, such as modalities (Table 6).

    See :func:`~lightning_ss2a.metrics.functional.discriminant_test` for the method.

    As input to ``update``:

    - ``embedding``: embeddings, ``[B, D]``, any scale; B may be 0.
    - ``group_index``: group of each, ``[B]`` int64 from 0.

    As output of ``compute``: a dict of float32 scalars, ``entropy_r2``, ``minus_two_log_likelihood`` and
    ``misclassified``, the same bits for any order and any split into batches and ranks; NaN where there are fewer than
    two groups, or no more rows than groups. All embeddings are kept in float64 until ``reset``.

    Args:
        prior: probabilities of the groups without embeddings, ``equal`` or ``proportional`` to their rows.
        retained: part of the sum of squares that the components keep, in (0, 1].
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the shapes of an update do not fit, or an option is out of range.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import DiscriminantTest
        >>> metric = DiscriminantTest()
        >>> metric.update(torch.tensor([[-1.0], [1.0], [0.0], [2.0]]), torch.tensor([0, 0, 1, 1]))
        >>> metric.compute()["entropy_r2"]
        tensor(0.1251)
    """

    higher_is_better = None  # a manifold without a modality gap has a low entropy R², one of apart classes a high one

    labelled: list[Tensor]

    def __init__(
        self, prior: Literal["equal", "proportional"] = "equal", retained: float = 0.9999, **kwargs: Any
    ) -> None:
        super().__init__(**{"dist_sync_fn": gather_ragged, **kwargs})
        check_options(prior, retained)
        self.prior: Literal["equal", "proportional"] = prior
        self.retained = retained
        self.add_state("labelled", [], dist_reduce_fx="cat")

    def update(self, embedding: Tensor, group_index: Tensor) -> None:
        """Adds rows: embeddings ``[B, D]``, groups ``[B]``."""
        self.labelled.extend(labelled_rows(embedding, group_index=group_index))

    def compute(self) -> dict[str, Tensor]:
        """Computes the values over all rows of all ranks."""
        if len(self.labelled) == 0:
            return dict.fromkeys(Discriminant._fields, torch.full((), torch.nan, device=self.device))
        rows = in_content_order(dim_zero_cat(self.labelled))
        return discriminant_test(rows[:, 1:], rows[:, 0].long(), self.prior, self.retained)._asdict()
