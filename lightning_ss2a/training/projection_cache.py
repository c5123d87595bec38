"""A frozen projector that reads each embedding once, however many scenes and epochs it is in.

Letters: N embeddings, W their width, M width of what they are projected to, U different embeddings.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lightning_ss2a.models import DiagonalGaussian


class ProjectionCache:
    """Gaussians of all embeddings of a data set, each projected once and found again by its content.

    Nothing is drawn here: the caller samples the Gaussians anew each time. Embeddings are told apart by a 64-bit sum of
    their bits, each multiplied by a random odd factor and folded; among a million the chance of two alike is 3e-8. It
    takes 8 U M bytes, and twice as much for a moment while it is made.

    A lookup neither waits for the device nor projects, so it suits a training step; of an embedding that was not among
    those given it gives NaN.

    Args:
        projector: a network without randomness, ``[N, W] -> DiagonalGaussian [N, M]``; run in float32.
        embeddings: all that will be looked up, in parts of ``[N, W]``; repeated ones are projected once.
    """

    def __init__(self, projector: Callable[[Tensor], DiagonalGaussian], embeddings: Iterable[Tensor]) -> None:
        self._factors: Tensor | None = None
        means, log_variances = [], []
        seen = torch.zeros(0, dtype=torch.int64)
        for part in embeddings:
            new_keys, gaussian = self._project_new(projector, part, seen.to(part.device))
            means.append(gaussian.mean)
            log_variances.append(gaussian.log_variance)
            seen = torch.cat([seen.to(part.device), new_keys])
        self._keys, self._row = seen.sort()  # int64 [U] each: increasing keys, and where their Gaussians are
        self._mean = torch.cat(means)
        means.clear()
        self._log_variance = torch.cat(log_variances)

    def __len__(self) -> int:
        return len(self._keys)

    @torch.no_grad()
    def __call__(self, embeddings: Tensor) -> DiagonalGaussian:
        """Looks up Gaussians of embeddings that were given, ``[..., W] -> [..., M]``; NaN for others."""
        keys = self._keys_of(embeddings)
        position = torch.searchsorted(self._keys, keys).clamp_max(len(self._keys) - 1)
        unknown = (self._keys[position] != keys).unsqueeze(-1)
        row = self._row[position]
        mean, log_variance = self._mean[row], self._log_variance[row]
        return DiagonalGaussian(mean.masked_fill(unknown, torch.nan), log_variance)

    @torch.no_grad()
    def _project_new(
        self, projector: Callable[[Tensor], DiagonalGaussian], embeddings: Tensor, seen: Tensor
    ) -> tuple[Tensor, DiagonalGaussian]:
        """Computes keys and Gaussians of those embeddings whose keys were not seen, each once."""
        keys, position = torch.unique(self._keys_of(embeddings), return_inverse=True)
        first = torch.empty_like(keys).scatter_(0, position, torch.arange(len(embeddings), device=keys.device))
        new = ~torch.isin(keys, seen)
        with torch.autocast(embeddings.device.type, enabled=False):
            return keys[new], projector(embeddings[first[new]].float())

    def _keys_of(self, embeddings: Tensor) -> Tensor:
        """Computes a number for each embedding, ``[..., W] -> int64 [...]``."""
        bits = (embeddings.float() + 0.0).view(torch.int32).long()  # -0.0 + 0.0 is 0.0
        if self._factors is None:
            random = torch.Generator().manual_seed(0)
            self._factors = (2 * torch.randint(2**62, bits.shape[-1:], generator=random) + 1).to(bits.device)
        # The low bits of numbers stored in float16 are all 0, and those of their products too; the high ones are not.
        products = bits * self._factors
        return (products ^ (products >> 32)).sum(-1)
