"""What the metrics that add up exactly have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric


class ExactMetric(Metric):
    """A metric of the same value for any split into batches and ranks, whose states hence keep their types.

    The same to the last bit where counts and integers are added, or rows kept; to rounding of float64 where float64 is.

    Args:
        kwargs: options of ``torchmetrics.Metric``.
    """

    full_state_update = False
    is_differentiable = False

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        """Moves the states to another device; another dtype, of ``set_dtype`` say, would round counts and sums."""

        def move(state: Tensor) -> Tensor:
            moved = fn(state)
            return moved if moved.dtype == state.dtype else state.to(moved.device)

        return super()._apply(move, exclude_state)
