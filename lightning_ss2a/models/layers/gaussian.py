"""The diagonal Gaussian that every variational module of the paper returns (supplement 2.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DiagonalGaussian:
    """A batch of Gaussians with diagonal covariance.

    The second head of a module is read as a log-variance: std = exp(0.5 * log_variance), as in the published weights
    (the paper says "mean and variance").

    Attributes:
        mean: means, ``[..., D]``.
        log_variance: logarithms of the variances, ``[..., D]``.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import DiagonalGaussian
        >>> gaussian = DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 3))
        >>> gaussian.sample(draws=64).shape, gaussian.kl()
        (torch.Size([2, 3]), tensor(0.))
    """

    mean: Tensor
    log_variance: Tensor

    def __post_init__(self) -> None:
        if self.mean.shape != self.log_variance.shape:
            raise ValueError(
                "mean and log_variance must have one shape, "
                f"got {tuple(self.mean.shape)} and {tuple(self.log_variance.shape)}"
            )

    @property
    def std(self) -> Tensor:
        """Standard deviations, ``[..., D]``."""
        return (0.5 * self.log_variance).exp()

    def sample(self, draws: int = 1) -> Tensor:
        """Draws the mean of ``draws`` independent samples, with gradients to mean and variance (reparameterised).

        The mean of n draws is itself Gaussian with std / sqrt(n), so it costs one draw whatever n is.

        Args:
            draws: samples to average, at least 1.

        Returns:
            ``[..., D]``.

        Raises:
            ValueError: If ``draws`` is below 1.
        """
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        mean = self.mean
        noise = torch.randn(mean.shape, device=mean.device, dtype=mean.dtype)
        return mean + noise * (self.std / draws**0.5)

    def kl(self) -> Tensor:
        r"""Computes the divergence from the standard normal in nats, summed over D, averaged over the batch (Eq. 5).

        .. math:: \frac{1}{2N} \sum_{n, d} \left( \mu_{nd}^2 + \sigma_{nd}^2 - 1 - \log \sigma_{nd}^2 \right)

        Computed in float32 or wider, also under autocast.
        """
        dtype = torch.promote_types(self.mean.dtype, torch.float32)
        mean, log_variance = self.mean.to(dtype), self.log_variance.to(dtype)
        return (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean() / 2
