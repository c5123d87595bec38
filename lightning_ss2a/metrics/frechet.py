"""Fréchet audio distance (FAD) as a metric."""

from typing import Any

import torch
from torch import Tensor

from lightning_ss2a.metrics.base import ExactMetric
from lightning_ss2a.metrics.functional.checks import check_rows
from lightning_ss2a.metrics.functional.frechet import (
    FrechetExtrapolation,
    Gaussian,
    check_widths,
    enough_rows,
    extrapolate_frechet,
    gaussian_distance,
    gaussian_of_moments,
    gaussian_of_rows,
    warn_of_few,
)
from lightning_ss2a.metrics.functional.moments import Moments, merge_moments, moments_of
from lightning_ss2a.metrics.gather import gather_ragged

SIDES = ("generated", "reference")

_EXTRAPOLATED = ("fad", "fad_infinity", "slope", "r2")


class FrechetAudioDistance(ExactMetric):
    r"""Fréchet distance of generated and real sounds, from embeddings of both.

    .. math:: \|\mu_g - \mu_r\|^2 + \mathrm{tr}\,\Sigma_g + \mathrm{tr}\,\Sigma_r
        - 2\,\mathrm{tr}\,(\Sigma_g \Sigma_r)^{1/2}

    As input to ``update``, at least one of:

    - ``generated``: embeddings of generated sounds, ``[B, D]``; B may be 0.
    - ``reference``: embeddings of real sounds, ``[B, D]``, of any other number.

    As output of ``compute``: the distance, a float32 scalar of at least 0, the same to rounding of float64 for any
    split into batches and ranks; NaN where a set has fewer than 2 rows. With ``extrapolation`` a dict of float32
    scalars: ``fad``, ``fad_infinity``, ``slope`` and ``r2``; see :class:`FrechetExtrapolation`.

    A set is kept as its rows until there are as many as columns, then as their moments: at most 8 * D * (2 * D + 1)
    bytes, for any number of rows. With ``extrapolation`` all generated rows are kept, in float64.

    Args:
        extrapolation: how to extrapolate to infinitely many generated sounds; None: not.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: If the widths differ or a set is not two-dimensional.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics import FrechetAudioDistance
        >>> metric = FrechetAudioDistance()
        >>> metric.update(reference=torch.tensor([[0.0], [2.0], [4.0]]))
        >>> metric.update(generated=torch.tensor([[0.0], [6.0]]))
        >>> metric.update(generated=torch.tensor([[12.0]]))
        >>> metric.compute()
        tensor(32.)
    """

    higher_is_better = False

    def __init__(self, extrapolation: FrechetExtrapolation | None = None, **kwargs: Any) -> None:
        super().__init__(**{"dist_sync_fn": gather_ragged, **kwargs})
        self.extrapolation = extrapolation
        for side in SIDES:
            for part in ("rows", *Moments._fields):  # lists, since D is known at the first update only
                self.add_state(f"{side}_{part}", [], dist_reduce_fx="cat")

    def update(self, generated: Tensor | None = None, reference: Tensor | None = None) -> None:
        """Adds rows, ``[B, D]``, to one set or to both."""
        sets = {side: rows for side, rows in zip(SIDES, (generated, reference), strict=True) if rows is not None}
        if not sets:
            raise ValueError("update needs generated, reference or both")
        check_rows(**sets)
        check_widths(**sets, **self._first_rows())
        for side, rows in sets.items():
            if len(rows):
                self._add(side, rows.detach().double())

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Computes the distance between all rows of all ranks."""
        (generated_count, generated), (reference_count, reference) = (self._fit(side) for side in SIDES)
        if not enough_rows("FAD", generated_count, reference_count):
            value = torch.full((), torch.nan, device=self.device)
            return value if self.extrapolation is None else dict.fromkeys(_EXTRAPOLATED, value)
        warn_of_few(generated_count, reference_count, len(reference.mean))
        distance = gaussian_distance(generated, reference)
        if self.extrapolation is None:
            return distance.float()
        fit = extrapolate_frechet(torch.cat(self._state("generated", "rows")), reference, self.extrapolation)
        values = (distance, fit.value, fit.slope, fit.r2)
        return {name: value.float() for name, value in zip(_EXTRAPOLATED, values, strict=True)}

    def _add(self, side: str, rows: Tensor) -> None:
        """Adds rows, [B, D], and turns those of a set into moments once there are as many as columns."""
        waiting = [*self._state(side, "rows"), rows]
        if sum(map(len, waiting)) >= rows.shape[1] and not (side == "generated" and self.extrapolation is not None):
            moments = merge_moments([*self._moments(side), moments_of(torch.cat(waiting))])
            for name, value in moments._asdict().items():
                setattr(self, f"{side}_{name}", [value.unsqueeze(0)])
            waiting = []
        setattr(self, f"{side}_rows", waiting)

    def _state(self, side: str, part: str) -> list[Tensor]:
        """A state as a list: of this rank before the ranks' states are gathered, else of one tensor."""
        state = getattr(self, f"{side}_{part}")
        return state if isinstance(state, list) else [state] if len(state) else []

    def _moments(self, side: str) -> list[Moments]:
        """Moments of a set by rank."""
        parts = [self._state(side, name) for name in Moments._fields]
        return [Moments(*part) for part in zip(*map(torch.cat, parts), strict=True)] if parts[0] else []

    def _fit(self, side: str) -> tuple[int, Gaussian]:
        """Counts a set's rows and fits a normal distribution to them; an empty one where there are fewer than two."""
        rows, moments = self._state(side, "rows"), self._moments(side)
        count = sum(map(len, rows)) + sum(int(part.size) for part in moments)
        if count < 2:
            return count, Gaussian(torch.zeros(0), torch.zeros(0, 0))
        if not moments:
            return count, gaussian_of_rows(torch.cat(rows))
        if rows:
            moments = [*moments, moments_of(torch.cat(rows))]
        return count, gaussian_of_moments(merge_moments(moments))

    def _first_rows(self) -> dict[str, Tensor]:
        """Some row, ``[1, D]``, of each set that has any."""
        found = {side: self._state(side, "rows") or self._state(side, "mean") for side in SIDES}
        return {f"earlier {side}": rows[0][:1] for side, rows in found.items() if rows}
