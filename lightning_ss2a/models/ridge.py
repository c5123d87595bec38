"""Closed-form ridge regression from sums over the data, so that a data set of any size is read once.

Shapes: n rows, X width of the inputs, Y width of the targets, R axes along which the inputs vary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

GCV_PENALTIES = torch.logspace(-4, 3, 57, dtype=torch.float64)
"""Relative penalties that generalised cross-validation chooses from."""

NO_VARIANCE = 1e-12
"""Variance, relative to the mean square, that is only what rounding leaves of identical inputs."""


@dataclass(frozen=True)
class LinearMap:
    """An affine map, laid out as ``torch.nn.Linear``.

    Attributes:
        weight: ``[Y, X]`` float64.
        bias: ``[Y]`` float64.
        penalty: relative ridge penalty that it was fitted with; 0 where the inputs do not vary.
    """

    weight: Tensor
    bias: Tensor
    penalty: float

    def __call__(self, x: Tensor) -> Tensor:
        """Maps ``[..., X] -> [..., Y]`` in the precision and on the device of ``x``."""
        return torch.nn.functional.linear(x, self.weight.to(x), self.bias.to(x))


@dataclass(frozen=True)
class RidgePath:
    """The ridge regressions of all penalties on the same rows, from one decomposition.

    Attributes:
        mean_x: mean input, ``[X]`` float64.
        mean_y: mean target, ``[Y]``.
        eigenvalues: of the centred inputs' products, ``[R]``; others are 0.
        eigenvectors: ``[X, R]``.
        rotated_xy: centred cross products along each eigenvector, ``[R, Y]``.
        mean_variance: what penalties are relative to; 0 where the inputs do not vary.
    """

    mean_x: Tensor
    mean_y: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    rotated_xy: Tensor
    mean_variance: float

    def at(self, penalty: float) -> LinearMap:
        """Gives the map of a relative penalty; inputs without variance give the mean target."""
        if self.mean_variance == 0:
            return LinearMap(self.mean_x.new_zeros(len(self.mean_y), len(self.mean_x)), self.mean_y, 0.0)
        shrunk = self.rotated_xy / self._denominator(penalty).unsqueeze(1)  # [R, Y]
        weight = (self.eigenvectors @ shrunk).T  # [Y, X]
        return LinearMap(weight, self.mean_y - weight @ self.mean_x, penalty)

    def predict(self, x: Tensor, penalties: Sequence[float]) -> Iterator[Tensor]:
        """Predicts ``[n, X] -> [n, Y]`` float64 with each penalty in turn."""
        rotated = (x.to(self.mean_x) - self.mean_x) @ self.eigenvectors  # [n, R]
        for penalty in penalties:
            yield (rotated / self._denominator(penalty)) @ self.rotated_xy + self.mean_y

    def _denominator(self, penalty: float) -> Tensor:
        return self.eigenvalues + penalty * self.mean_variance


class RidgeRegression:
    r"""Predicts targets y from inputs x by a linear map with an L2 penalty and an unpenalised bias.

    .. math::
        \min_{W, b} \sum_i \| y_i - W x_i - b \|^2 + \lambda \| W \|^2
        \quad\Rightarrow\quad
        W = S_{yx} (S_{xx} + \lambda I)^{-1}, \quad b = \bar{y} - W \bar{x}

    with :math:`\bar{x}`, :math:`\bar{y}` the means and :math:`S_{xx} = \sum_i (x_i - \bar{x})(x_i - \bar{x})^\top`,
    :math:`S_{yx} = \sum_i (y_i - \bar{y})(x_i - \bar{x})^\top`. The penalty is relative to the mean variance of the
    inputs, so that one value suits any number of rows and any scale:

    .. math:: \lambda = \mathrm{penalty} \cdot \mathrm{tr}(S_{xx}) / X

    ``gcv`` takes, of 57 penalties from 1e-4 to 1e3, the one with the least score of generalised cross-validation
    (Golub, Heath and Wahba 1979), with :math:`s_r` the eigenvalues of :math:`S_{xx}`:

    .. math:: \mathrm{GCV}(\lambda) = \frac{\sum_i \| y_i - W_\lambda x_i - b_\lambda \|^2}
        {\left( n - 1 - \sum_r s_r / (s_r + \lambda) \right)^2}

    Only float64 sums are kept, in memory of X * (X + Y) whatever the number of rows.

    Attributes:
        count: rows seen; of weighted rows the sum of their weights.
        rows_x: the inputs themselves, parts of ``[n, X]``, as long as there are at most X and none has a weight; else
            None. Fewer rows than columns are cheaper to decompose than their products.

    Args:
        input_width: width of the inputs.
        target_width: width of the targets.
        penalty: relative penalty above 0, or ``gcv``.
        device: where the sums are kept.

    Raises:
        ValueError: If the penalty is not positive.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models.ridge import RidgeRegression
        >>> ridge = RidgeRegression(2, 1, penalty=1.0)
        >>> ridge.update(torch.eye(2), torch.tensor([[1.0], [3.0]]))
        >>> ridge.fit()(torch.eye(2))
        tensor([[1.3333],
                [2.6667]])
    """

    def __init__(
        self,
        input_width: int,
        target_width: int,
        penalty: float | Literal["gcv"] = "gcv",
        device: torch.device | str | None = None,
    ) -> None:
        if penalty != "gcv" and not (isinstance(penalty, float | int) and penalty > 0):
            raise ValueError(f"penalty must be above 0 or 'gcv', got {penalty!r}")
        self.penalty = penalty
        self.count: float = 0
        self._sum_x = torch.zeros(input_width, dtype=torch.float64, device=device)
        self._sum_y = torch.zeros(target_width, dtype=torch.float64, device=device)
        self._sum_xx = torch.zeros(input_width, input_width, dtype=torch.float64, device=device)
        self._sum_xy = torch.zeros(input_width, target_width, dtype=torch.float64, device=device)
        self._sum_y_squared = torch.zeros((), dtype=torch.float64, device=device)
        self.rows_x: list[Tensor] | None = []

    @property
    def mean_target(self) -> Tensor:
        """Mean of the targets seen, ``[Y]`` float64."""
        return self._sum_y / self.count

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        """Adds rows.

        Args:
            x: inputs, ``[n, X]``; the caller L2-normalises embeddings before.
            y: targets, ``[n, Y]``.
            weight: how often each row counts, ``[n]``, at least 0; None: once.

        Raises:
            ValueError: If widths or numbers of rows do not fit.
        """
        expected_x, expected_y = (len(x), len(self._sum_x)), (len(x), len(self._sum_y))
        if x.shape != expected_x or y.shape != expected_y:
            raise ValueError(
                f"x and y must have shapes {expected_x} and {expected_y}, got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        x, y = x.to(self._sum_x), y.to(self._sum_y)
        times = x.new_ones(len(x), 1) if weight is None else weight.to(x).unsqueeze(1)
        weighted_x = x if weight is None else times * x
        self.count += len(x) if weight is None else float(times.sum())
        self._sum_x += weighted_x.sum(0)
        self._sum_y += (times * y).sum(0)
        self._sum_xx.addmm_(weighted_x.T, x)
        self._sum_xy.addmm_(weighted_x.T, y)
        self._sum_y_squared += (times * y.square()).sum()
        few = weight is None and self.rows_x is not None and self.count <= len(self._sum_x)
        self.rows_x = [*(self.rows_x or []), x] if few else None

    def combined(self, other: "RidgeRegression", sign: int = 1) -> "RidgeRegression":
        """Gives the regression on the rows of both, or, with ``sign`` -1, on those that are not the other's."""
        result = RidgeRegression(len(self._sum_x), len(self._sum_y), self.penalty, self._sum_x.device)
        result.count, result.rows_x = self.count + sign * other.count, None
        for name in ("_sum_x", "_sum_y", "_sum_xx", "_sum_xy", "_sum_y_squared"):
            setattr(result, name, getattr(self, name) + sign * getattr(other, name))
        return result

    def rotated(self, axes: Tensor, origin: Tensor) -> "RidgeRegression":
        """Gives the regression of the same rows, their inputs seen from an origin ``[X]`` along axes ``[X, R]``."""
        result = RidgeRegression(axes.shape[1], len(self._sum_y), self.penalty, axes.device)
        shift = torch.outer(self._sum_x, origin)
        moved = self._sum_xx - shift - shift.T + self.count * torch.outer(origin, origin)
        result.count, result.rows_x = self.count, None
        result._sum_x = axes.T @ (self._sum_x - self.count * origin)
        result._sum_xx = axes.T @ moved @ axes
        result._sum_xy = axes.T @ (self._sum_xy - torch.outer(origin, self._sum_y))
        result._sum_y, result._sum_y_squared = self._sum_y, self._sum_y_squared
        return result

    def fit(self) -> LinearMap:
        """Fits the map to the rows seen; inputs without variance give the mean target.

        Raises:
            ValueError: If there is no row.
        """
        path = self.path()
        return path.at(0.0 if path.mean_variance == 0 else self._choose_penalty(path))

    def path(self) -> RidgePath:
        """Decomposes the rows seen, for the maps of all penalties.

        Raises:
            ValueError: If there is no row.
        """
        if self.count <= 0:
            raise ValueError("no row was seen: nothing to regress on")
        mean_x, mean_y = self._sum_x / self.count, self.mean_target
        centred_xx = self._sum_xx - self.count * torch.outer(mean_x, mean_x)  # [X, X]
        centred_xy = self._sum_xy - self.count * torch.outer(mean_x, mean_y)  # [X, Y]
        mean_variance = float(centred_xx.diagonal().mean())
        if mean_variance <= NO_VARIANCE * float(self._sum_xx.diagonal().mean()):
            none = mean_x.new_zeros(0)
            return RidgePath(mean_x, mean_y, none, centred_xx[:, :0], centred_xy[:0], 0.0)
        eigenvalues, eigenvectors = self._principal_axes(mean_x, centred_xx)  # [R], [X, R]
        return RidgePath(mean_x, mean_y, eigenvalues, eigenvectors, eigenvectors.T @ centred_xy, mean_variance)

    def _principal_axes(self, mean_x: Tensor, centred_xx: Tensor) -> tuple[Tensor, Tensor]:
        """Finds eigenvalues [R] and eigenvectors [X, R] of the centred inputs' products; of few rows, those above 0."""
        if self.rows_x is None:
            eigenvalues, eigenvectors = torch.linalg.eigh(centred_xx)
            return eigenvalues.clamp_min(0), eigenvectors
        centred = torch.cat(self.rows_x) - mean_x  # [n, X]
        eigenvalues, eigenvectors = torch.linalg.eigh(centred @ centred.T)
        there = eigenvalues > NO_VARIANCE * eigenvalues[-1]
        eigenvalues, eigenvectors = eigenvalues[there], eigenvectors[:, there]
        return eigenvalues, centred.T @ (eigenvectors / eigenvalues.sqrt())

    def _choose_penalty(self, path: RidgePath) -> float:
        """Returns the penalty as given, or the one with the least residual / (rows - degrees of freedom)^2."""
        if self.penalty != "gcv":
            return float(self.penalty)
        squares_y = self._sum_y_squared - self.count * path.mean_y.square().sum()
        rotated_squares = path.rotated_xy.square().sum(1)  # [R]
        penalties = GCV_PENALTIES.to(path.eigenvalues.device)
        shrunk = path.eigenvalues + path.mean_variance * penalties.unsqueeze(1)  # [P, R]
        explained = (rotated_squares * (2 / shrunk - path.eigenvalues / shrunk.square())).sum(1)  # [P]
        freedom = self.count - 1 - (path.eigenvalues / shrunk).sum(1)  # [P], the bias costs one
        return float(penalties[((squares_y - explained).clamp_min(0) / freedom.square()).argmin()])
