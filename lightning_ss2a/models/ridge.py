"""Closed-form ridge regression from sums over the data, so that a data set of any size is read once.

Shapes: n rows, X width of the inputs, Y width of the targets.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

GCV_PENALTIES = torch.logspace(-4, 3, 57, dtype=torch.float64)

NO_VARIANCE = 1e-12
"""Variance, relative to the mean square, that is only what rounding leaves of identical inputs."""


class CrossMoments:
    """Float64 sums that determine a linear regression, in memory of X * (X + Y) whatever the number of rows.

    Attributes:
        count: rows seen.
        sum_x: sum of the inputs, ``[X]``.
        sum_y: sum of the targets, ``[Y]``.
        sum_xx: sum of the inputs' outer products, ``[X, X]``.
        sum_xy: sum of the outer products of inputs and targets, ``[X, Y]``.
        sum_y_squared: sum of the targets' squared norms, a scalar.
        rows_x: the inputs themselves, parts of ``[n, X]``, as long as there are at most X; None: there are more. Fewer
            rows than columns are cheaper to decompose than their products.

    Args:
        input_width: width of the inputs.
        target_width: width of the targets.
        device: where the sums are kept.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import CrossMoments, ridge_regression
        >>> inputs = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> moments = CrossMoments(1, 1)
        >>> moments.update(inputs, 2 * inputs + 1)
        >>> ridge_regression(moments, penalty=1e-9)(torch.tensor([[10.0]]))
        tensor([[21.]])
    """

    def __init__(self, input_width: int, target_width: int, device: torch.device | str | None = None) -> None:
        self.count = 0
        self.sum_x = torch.zeros(input_width, dtype=torch.float64, device=device)
        self.sum_y = torch.zeros(target_width, dtype=torch.float64, device=device)
        self.sum_xx = torch.zeros(input_width, input_width, dtype=torch.float64, device=device)
        self.sum_xy = torch.zeros(input_width, target_width, dtype=torch.float64, device=device)
        self.sum_y_squared = torch.zeros((), dtype=torch.float64, device=device)
        self.rows_x: list[Tensor] | None = []

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor) -> None:
        """Add rows.

        Args:
            x: inputs, ``[n, X]``.
            y: targets, ``[n, Y]``.

        Raises:
            ValueError: If widths or numbers of rows do not fit.
        """
        expected_x, expected_y = (len(x), len(self.sum_x)), (len(x), len(self.sum_y))
        if x.shape != expected_x or y.shape != expected_y:
            raise ValueError(
                f"x and y must have shapes {expected_x} and {expected_y}, got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        x, y = x.to(self.sum_x), y.to(self.sum_y)
        self.count += len(x)
        self.sum_x += x.sum(0)
        self.sum_y += y.sum(0)
        self.sum_xx.addmm_(x.T, x)
        self.sum_xy.addmm_(x.T, y)
        self.sum_y_squared += y.square().sum()
        self._keep_rows([x])

    def merge(self, other: "CrossMoments") -> None:
        """Add the rows that another object has seen.

        Raises:
            ValueError: If its widths differ.
        """
        if self.sum_xy.shape != other.sum_xy.shape:
            raise ValueError(
                f"other must have widths {tuple(self.sum_xy.shape)}, got {tuple(other.sum_xy.shape)} (inputs, targets)"
            )
        self.count += other.count
        for name in ("sum_x", "sum_y", "sum_xx", "sum_xy", "sum_y_squared"):
            getattr(self, name).add_(getattr(other, name).to(self.sum_x.device))
        self._keep_rows(None if other.rows_x is None else [rows.to(self.sum_x) for rows in other.rows_x])

    def _keep_rows(self, rows: list[Tensor] | None) -> None:
        few = self.rows_x is not None and rows is not None and self.count <= len(self.sum_x)
        self.rows_x = self.rows_x + rows if few else None


@dataclass(frozen=True)
class LinearMap:
    """An affine map, laid out as ``torch.nn.Linear``.

    Attributes:
        weight: ``[Y, X]`` float64.
        bias: ``[Y]`` float64.
        penalty: relative ridge penalty that it was fitted with.
    """

    weight: Tensor
    bias: Tensor
    penalty: float

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``[..., X] -> [..., Y]`` in the precision and on the device of ``x``."""
        return torch.nn.functional.linear(x, self.weight.to(x), self.bias.to(x))


def ridge_regression(moments: CrossMoments, penalty: float | Literal["gcv"]) -> LinearMap:
    r"""Ridge regression with an unpenalised bias.

    .. math::
        W = (S_{xx} + \lambda I)^{-1} S_{xy}, \quad b = \bar{y} - W^\top \bar{x}, \quad
        \lambda = \mathrm{penalty} \cdot \mathrm{tr}(S_{xx}) / X

    with S the centred sums of products. The penalty is relative to the inputs' mean variance, so one value suits any
    number of rows and any scale. ``gcv`` takes the one of 57 penalties from 1e-4 to 1e3 with the least generalised
    cross-validation score (Golub, Heath and Wahba 1979).

    Args:
        moments: sums over the rows; the caller L2-normalises embeddings before.
        penalty: relative penalty above 0, or ``gcv``.

    Returns:
        The map from inputs to targets. Inputs without variance give the mean target.

    Raises:
        ValueError: If there is no row, or the penalty is not positive.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import CrossMoments, ridge_regression
        >>> moments = CrossMoments(2, 1)
        >>> moments.update(torch.eye(2), torch.tensor([[1.0], [3.0]]))
        >>> ridge_regression(moments, penalty=1.0)(torch.eye(2))
        tensor([[1.3333],
                [2.6667]])
    """
    if moments.count == 0:
        raise ValueError("moments hold no row: nothing to regress on")
    if penalty != "gcv" and not (isinstance(penalty, float | int) and penalty > 0):
        raise ValueError(f"penalty must be above 0 or 'gcv', got {penalty!r}")
    mean_x, mean_y = moments.sum_x / moments.count, moments.sum_y / moments.count
    centred_xx = moments.sum_xx - moments.count * torch.outer(mean_x, mean_x)  # [X, X]
    centred_xy = moments.sum_xy - moments.count * torch.outer(mean_x, mean_y)  # [X, Y]
    mean_variance = float(centred_xx.diagonal().mean())
    if mean_variance <= NO_VARIANCE * float(moments.sum_xx.diagonal().mean()):
        return LinearMap(torch.zeros_like(centred_xy.T), mean_y, 0.0)
    eigenvalues, eigenvectors = _principal_axes(moments, mean_x, centred_xx)  # [R], [X, R]
    rotated_xy = eigenvectors.T @ centred_xy  # [R, Y]
    if penalty == "gcv":
        squares_y = moments.sum_y_squared - moments.count * mean_y.square().sum()
        penalty = _gcv_penalty(moments.count, eigenvalues, rotated_xy.square().sum(1), squares_y, mean_variance)
    weight = (eigenvectors @ (rotated_xy / (eigenvalues + penalty * mean_variance).unsqueeze(1))).T  # [Y, X]
    return LinearMap(weight, mean_y - weight @ mean_x, float(penalty))


def _principal_axes(moments: CrossMoments, mean_x: Tensor, centred_xx: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [R] and eigenvectors [X, R] of the centred inputs' products; of few rows, only those above 0."""
    if moments.rows_x is None:
        eigenvalues, eigenvectors = torch.linalg.eigh(centred_xx)
        return eigenvalues.clamp_min(0), eigenvectors
    centred = torch.cat(moments.rows_x) - mean_x  # [n, X]
    eigenvalues, eigenvectors = torch.linalg.eigh(centred @ centred.T)
    there = eigenvalues > NO_VARIANCE * eigenvalues[-1]
    eigenvalues, eigenvectors = eigenvalues[there], eigenvectors[:, there]
    return eigenvalues, centred.T @ (eigenvectors / eigenvalues.sqrt())


def _gcv_penalty(
    count: int, eigenvalues: Tensor, rotated_squares: Tensor, squares_y: Tensor, mean_variance: float
) -> float:
    """The relative penalty with the least residual / (rows - degrees of freedom)^2.

    Args:
        count: rows.
        eigenvalues: of the centred inputs' products, ``[R]``; others are 0.
        rotated_squares: squared norm of the cross products along each eigenvector, ``[R]``.
        squares_y: sum of squares of the centred targets.
        mean_variance: what penalties are relative to.
    """
    penalties = GCV_PENALTIES.to(eigenvalues.device)
    shrunk = eigenvalues + mean_variance * penalties.unsqueeze(1)  # [P, R]
    explained = (rotated_squares * (2 / shrunk - eigenvalues / shrunk.square())).sum(1)  # [P]
    freedom = count - 1 - (eigenvalues / shrunk).sum(1)  # [P], the bias costs one
    return float(penalties[((squares_y - explained).clamp_min(0) / freedom.square()).argmin()])
