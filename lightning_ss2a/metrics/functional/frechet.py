"""Fréchet audio distance (FAD): how far apart are two sets of embeddings, each taken for a normal distribution?"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ss2a.metrics.functional.checks import check_rows
from lightning_ss2a.metrics.functional.moments import Moments, in_content_order, moments_of
from lightning_ss2a.options import OptionCheck

_ACCURACY = 1e-8  # of the sum of both traces
_SMALL = 1024  # rows of a matrix whose singular values take about a second


@dataclass(frozen=True)
class FrechetExtrapolation:
    """How FAD is extrapolated to infinitely many generated sounds (Chong & Forsyth 2020; Gui et al. 2024).

    FAD of N sounds is larger than that of the distribution which they are drawn from, by about a constant over N, and
    the constant differs between methods. FAD of subsets of several sizes is fitted linearly over 1 / N; the value at
    1 / N = 0 is FAD∞. It wants sizes above the width: below, FAD is not linear in 1 / N.
    """

    points: int = 15
    """Sizes of subsets, evenly spaced from the least to all rows."""

    least_rows: int = 500
    """Rows of the smallest subset. Twice as many have to be there."""

    seed: int = 0
    """Seed of the subsets, which are drawn without replacement, whatever order the rows came in."""

    def __post_init__(self) -> None:
        """Checks the options."""
        check = OptionCheck("extrapolation")
        check.at_least(2, points=self.points, least_rows=self.least_rows)
        check.at_least(0, seed=self.seed)


class FrechetFit(NamedTuple):
    """The line through FAD over 1 / N.

    Attributes:
        value: FAD∞, a float64 scalar; it may be below 0.
        slope: change of FAD with 1 / N, a float64 scalar.
        r2: part of the variance of FAD that the line explains, a float64 scalar.
        rows: sizes of the subsets, ``[points]`` int64.
        distances: FAD of each, ``[points]`` float64.
    """

    value: Tensor
    slope: Tensor
    r2: Tensor
    rows: Tensor
    distances: Tensor


class Gaussian(NamedTuple):
    """A normal distribution with its covariance as a product.

    Attributes:
        mean: ``[D]`` float64.
        factor: F with covariance FᵀF, ``[R, D]`` float64.
    """

    mean: Tensor
    factor: Tensor


def gaussian_of_rows(rows: Tensor) -> Gaussian:
    """Fits a normal distribution to rows ``[N, D]``, N at least 2; its factor has the smaller of N and D rows."""
    rows = rows.double()
    if len(rows) >= rows.shape[1]:
        return gaussian_of_moments(moments_of(rows))
    mean = rows.mean(0)
    return Gaussian(mean, (rows - mean) / (len(rows) - 1) ** 0.5)


def gaussian_of_counted_rows(rows: Tensor, counts: Tensor) -> Gaussian:
    """Fits a normal distribution to rows that are there several times; no more work than for as many different ones.

    Args:
        rows: ``[N, D]``.
        counts: how often each is there, ``[N]`` int64, none below 0, at least 2 together.
    """
    rows, counts = rows[counts > 0].double(), counts[counts > 0].double()
    size = counts.sum()
    mean = counts @ rows / size
    factor = counts.sqrt().unsqueeze(1) * (rows - mean)
    if len(rows) < rows.shape[1]:
        return Gaussian(mean, factor / (size - 1).sqrt())
    return gaussian_of_moments(Moments(size, mean, factor.T @ factor))


def gaussian_of_moments(moments: Moments) -> Gaussian:
    """Fits a normal distribution to moments of at least 2 rows; its factor is ``[D, D]``."""
    covariance = moments.scatter / (moments.size - 1)
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if not failed and lower.isfinite().all():
        return Gaussian(moments.mean, lower.T)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # singular, such as with a constant column
    return Gaussian(moments.mean, eigenvalues.clamp(min=0).sqrt().unsqueeze(1) * eigenvectors.T)


def gaussian_distance(x: Gaussian, y: Gaussian) -> Tensor:
    r"""Computes the squared Fréchet distance of two normal distributions, a float64 scalar of at least 0.

    .. math:: \|\mu_x - \mu_y\|^2 + \mathrm{tr}\,\Sigma_x + \mathrm{tr}\,\Sigma_y
        - 2\,\mathrm{tr}\,(\Sigma_x \Sigma_y)^{1/2}

    (Dowson & Landau 1982). With Σ = FᵀF the last trace is the nuclear norm of F_x F_yᵀ, and nothing complex can come of
    it.
    """
    traces = x.factor.square().sum() + y.factor.square().sum()
    root_trace = nuclear_norm(x.factor @ y.factor.T, _ACCURACY * traces)
    distance = (x.mean - y.mean).square().sum() + traces - 2 * root_trace
    rounding = len(x.mean) * torch.finfo(traces.dtype).eps * traces  # of as many singular values
    return torch.where(distance <= rounding, 0.0, distance)


def nuclear_norm(matrix: Tensor, accuracy: Tensor) -> Tensor:
    """Sums the singular values of a matrix ``[R, S]`` float64, a float64 scalar.

    A large matrix is squared first, since symmetric eigenvalues come several times as fast. The root of a small one has
    lost half of its digits then; where these add up to more than ``accuracy``, singular values are computed after all.
    """
    if min(matrix.shape) <= _SMALL:
        return torch.linalg.svdvals(matrix).sum()
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    squares = torch.linalg.eigvalsh(matrix @ matrix.T).clamp(min=0)
    rounding = torch.finfo(squares.dtype).eps * squares[-1]
    if ((squares + rounding).sqrt() - squares.sqrt()).sum() > accuracy:
        return torch.linalg.svdvals(matrix).sum()
    return squares.sqrt().sum()


def frechet_audio_distance(generated: Tensor, reference: Tensor) -> Tensor:
    r"""Computes the Fréchet distance of two sets of embeddings (Kilgour et al. 2019).

    .. math:: \|\mu_g - \mu_r\|^2 + \mathrm{tr}\,\Sigma_g + \mathrm{tr}\,\Sigma_r
        - 2\,\mathrm{tr}\,(\Sigma_g \Sigma_r)^{1/2}

    with covariances over N - 1. In float64. While a set has fewer rows than columns, its rows stand for the root of
    its covariance.

    Args:
        generated: embeddings of generated sounds, ``[N, D]``, N at least 2.
        reference: embeddings of real sounds, ``[M, D]``, M at least 2.

    Returns:
        The distance, a float32 scalar of at least 0; NaN, with a warning, where a set has fewer than 2 rows. A warning
        where one has no more rows than columns.

    Raises:
        ValueError: If the widths differ or a set is not two-dimensional.
        InputError: If a row holds NaN or infinity.

    Example:
        >>> import torch
        >>> from lightning_ss2a.metrics.functional import frechet_audio_distance
        >>> reference = torch.tensor([[0.0], [2.0], [4.0]])  # mean 2, variance 4
        >>> frechet_audio_distance(3 * reference, reference)  # (6 - 2)² + (6 - 2)²
        tensor(32.)
    """
    check_sets(generated, reference)
    if not enough_rows("FAD", len(generated), len(reference)):
        return torch.full((), torch.nan, device=generated.device)
    warn_of_few(len(generated), len(reference), generated.shape[1])
    return gaussian_distance(gaussian_of_rows(generated), gaussian_of_rows(reference)).float()


def extrapolate_frechet(generated: Tensor, reference: Gaussian, extrapolation: FrechetExtrapolation) -> FrechetFit:
    """Extrapolates FAD to infinitely many generated sounds; see :class:`FrechetExtrapolation`.

    Args:
        generated: embeddings of generated sounds, ``[N, D]``, in any order.
        reference: the normal distribution of real sounds.
        extrapolation: sizes and seed of the subsets.

    Returns:
        The line; NaN, with a warning, where there are fewer than ``2 * least_rows`` rows.

    Raises:
        InputError: If a row holds NaN or infinity.
    """
    check_rows(generated=generated)
    count, least = len(generated), extrapolation.least_rows
    if count < 2 * least:
        warnings.warn(
            f"FAD∞ needs twice extrapolation.least_rows = {least} generated rows, found {count}: it is NaN",
            stacklevel=3,
        )
        nothing = torch.full((), torch.nan, dtype=torch.float64, device=generated.device)
        return FrechetFit(nothing, nothing, nothing, nothing.new_zeros(0).long(), nothing.new_zeros(0))
    if least <= generated.shape[1]:
        warnings.warn(
            f"FAD∞ from subsets of {least} rows of {generated.shape[1]} numbers: no line below as many rows as "
            f"numbers; take extrapolation.least_rows above {generated.shape[1]}, or an encoder with fewer numbers",
            stacklevel=3,
        )
    ordered = in_content_order(generated.double())
    generator = torch.Generator().manual_seed(extrapolation.seed)
    sizes = torch.linspace(least, count, extrapolation.points, dtype=torch.float64).long()
    distances = [
        gaussian_distance(
            gaussian_of_rows(ordered[torch.randperm(count, generator=generator)[:size].to(ordered.device)]), reference
        )
        for size in sizes.tolist()
    ]
    return fit_over_inverse(sizes.to(ordered.device), torch.stack(distances))


def fit_over_inverse(rows: Tensor, distances: Tensor) -> FrechetFit:
    """Fits distances ``[points]`` linearly over 1 / rows, ``[points]``, by least squares."""
    x = 1 / rows.double()
    dx, dy = x - x.mean(), distances - distances.mean()
    slope = (dx * dy).sum() / dx.square().sum()
    residual, total = (dy - slope * dx).square().sum(), dy.square().sum()
    r2 = torch.where(total > 0, 1 - residual / total, torch.ones_like(total))
    return FrechetFit(distances.mean() - slope * x.mean(), slope, r2, rows, distances)


def check_sets(generated: Tensor, reference: Tensor) -> None:
    """Checks two sets of embeddings, ``[N, D]`` and ``[M, D]``; raises as :func:`frechet_audio_distance` says."""
    check_rows(generated=generated, reference=reference)
    check_widths(generated=generated, reference=reference)


def check_widths(**sets: Tensor) -> None:
    """Raises ValueError where sets of embeddings, ``[rows, width]`` each, differ in width."""
    widths = {name: rows.shape[1] for name, rows in sets.items()}
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(f"embeddings of one encoder must have one width, got {found}")


def enough_rows(metric: str, generated: int, reference: int, least: int = 2) -> bool:
    """Warns where a set has too few rows for a metric; one that has none is not worth a warning."""
    few = min(generated, reference)
    if 0 < few < least:
        warnings.warn(
            f"{metric} needs at least {least} rows of each set, found {generated} generated and {reference} of the "
            "reference: it is NaN",
            stacklevel=3,
        )
    return few >= least


def warn_of_few(generated: int, reference: int, width: int) -> None:
    """Warns where a set has no more rows than columns, so that its covariance is singular and FAD too large."""
    for name, rows in (("generated", generated), ("reference", reference)):
        if rows <= width:
            warnings.warn(
                f"FAD of {rows} {name} rows of {width} numbers is biased upwards: compare it only among sets of one "
                f"size, or take more than {width} sounds",
                stacklevel=3,
            )
