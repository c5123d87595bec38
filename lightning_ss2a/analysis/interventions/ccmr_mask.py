"""A mask that weakens the contrast as much as CCMR's, but does not know which pairs are alike."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_ss2a.analysis.interventions.base import Intervention
from lightning_ss2a.losses.contrastive import CcmrMask
from lightning_ss2a.training import ManifoldModule


class ConstantMask(CcmrMask):
    """Gives all other pairs of a batch the mean of their CCMR mask; matching pairs 1."""

    def rows(self, start: int, stop: int) -> Tensor:
        """See :meth:`CcmrMask.rows`; the mean is that of these rows."""
        values = super().rows(start, stop)
        matching = torch.zeros_like(values, dtype=torch.bool)
        matching.diagonal(self.offset + start).fill_(True)
        return torch.where(matching, 1.0, values[~matching].mean())


class ConstantCcmrMask(Intervention[ManifoldModule]):
    """Trains a manifold with a :class:`ConstantMask` in place of CCMR's.

    A control for Eq. 7: what the mask does by its choice of pairs is lost, what it does by weakening the contrast is
    kept.
    """

    stages = (ManifoldModule,)

    @contextmanager
    def changed(self, trainer: Trainer, module: ManifoldModule) -> Iterator[None]:
        """Puts the constant mask in place of the other."""
        module.loss_terms.mask_type = ConstantMask
        yield
        module.loss_terms.mask_type = CcmrMask
