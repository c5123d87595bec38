"""Kullback-Leibler divergence of diagonal Gaussians from the standard normal distribution (Eq. 5)."""

import torch
from torch import Tensor


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Divergence from the standard normal, summed over the width and averaged over the batch.

    .. math:: \frac{1}{2N} \sum_{n, d} \left( \mu_{nd}^2 + \sigma_{nd}^2 - 1 - \log \sigma_{nd}^2 \right)

    Computed in float32 or wider, also under autocast.

    Args:
        mean: means, ``[..., D]``.
        log_variance: logarithms of the variances, ``[..., D]``.

    Returns:
        The divergence in nats, a scalar of at least 0.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> from lightning_ss2a.losses import kl_divergence
        >>> kl_divergence(torch.ones(2, 3), torch.zeros(2, 3))
        tensor(1.5000)
    """
    if mean.shape != log_variance.shape:
        raise ValueError(
            f"mean and log_variance must have one shape, got {tuple(mean.shape)} and {tuple(log_variance.shape)}"
        )
    dtype = torch.promote_types(mean.dtype, torch.float32)
    mean, log_variance = mean.to(dtype), log_variance.to(dtype)
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean() / 2
