"""Closed-form ridge regression from sums over the data, so that a data set of any size is read once.

Shapes: n rows, X width of the inputs, Y width of the targets, R axes along which the inputs vary.
"""

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
        count: rows seen.
        rows_x: the inputs themselves, parts of ``[n, X]``, as long as there are at most X; None: there are more. Fewer
            rows than columns are cheaper to decompose than their products.

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
        self.count = 0
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
    def update(self, x: Tensor, y: Tensor) -> None:
        """Adds rows.

        Args:
            x: inputs, ``[n, X]``; the caller L2-normalises embeddings before.
            y: targets, ``[n, Y]``.

        Raises:
            ValueError: If widths or numbers of rows do not fit.
        """
        expected_x, expected_y = (len(x), len(self._sum_x)), (len(x), len(self._sum_y))
        if x.shape != expected_x or y.shape != expected_y:
            raise ValueError(
                f"x and y must have shapes {expected_x} and {expected_y}, got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        x, y = x.to(self._sum_x), y.to(self._sum_y)
        self.count += len(x)
        self._sum_x += x.sum(0)
        self._sum_y += y.sum(0)
        self._sum_xx.addmm_(x.T, x)
        self._sum_xy.addmm_(x.T, y)
        self._sum_y_squared += y.square().sum()
        self.rows_x = None if self.rows_x is None or self.count > len(self._sum_x) else [*self.rows_x, x]

    def fit(self) -> LinearMap:
        """Fits the map to the rows seen; inputs without variance give the mean target.

        Raises:
            ValueError: If there is no row.
        """
        if self.count == 0:
            raise ValueError("no row was seen: nothing to regress on")
        mean_x, mean_y = self._sum_x / self.count, self.mean_target
        centred_xx = self._sum_xx - self.count * torch.outer(mean_x, mean_x)  # [X, X]
        centred_xy = self._sum_xy - self.count * torch.outer(mean_x, mean_y)  # [X, Y]
        mean_variance = float(centred_xx.diagonal().mean())
        if mean_variance <= NO_VARIANCE * float(self._sum_xx.diagonal().mean()):
            return LinearMap(torch.zeros_like(centred_xy.T), mean_y, 0.0)
        eigenvalues, eigenvectors = self._principal_axes(mean_x, centred_xx)  # [R], [X, R]
        rotated_xy = eigenvectors.T @ centred_xy  # [R, Y]
        penalty = self._choose_penalty(eigenvalues, rotated_xy, mean_y, mean_variance)
        weight = (eigenvectors @ (rotated_xy / (eigenvalues + penalty * mean_variance).unsqueeze(1))).T  # [Y, X]
        return LinearMap(weight, mean_y - weight @ mean_x, penalty)

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

    def _choose_penalty(self, eigenvalues: Tensor, rotated_xy: Tensor, mean_y: Tensor, mean_variance: float) -> float:
        """Returns the penalty as given, or the one with the least residual / (rows - degrees of freedom)^2.

        Args:
            eigenvalues: of the centred inputs' products, ``[R]``; others are 0.
            rotated_xy: centred cross products along each eigenvector, ``[R, Y]``.
            mean_y: mean target, ``[Y]``.
            mean_variance: what penalties are relative to.
        """
        if self.penalty != "gcv":
            return float(self.penalty)
        squares_y = self._sum_y_squared - self.count * mean_y.square().sum()
        rotated_squares = rotated_xy.square().sum(1)  # [R]
        penalties = GCV_PENALTIES.to(eigenvalues.device)
        shrunk = eigenvalues + mean_variance * penalties.unsqueeze(1)  # [P, R]
        explained = (rotated_squares * (2 / shrunk - eigenvalues / shrunk.square())).sum(1)  # [P]
        freedom = self.count - 1 - (eigenvalues / shrunk).sum(1)  # [P], the bias costs one
        return float(penalties[((squares_y - explained).clamp_min(0) / freedom.square()).argmin()])
