"""Measures how the CCMR mask weighs pairs, and what loss a manifold reaches without learning (Eq. 3 and 7)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_ss2a.analysis.probes.base import RowsProbe
from lightning_ss2a.callbacks.trainer_state import data_of
from lightning_ss2a.losses import ccmr_mask
from lightning_ss2a.training import ManifoldModule

SHARED_COSINES = {"opposite": -1.0, "orthogonal": 0.0, "equal": 1.0}
"""Cosines that a manifold could give to all pairs alike."""


class CcmrMaskStatistics(RowsProbe[ManifoldModule]):
    """Logs the mask that the manifold's loss gives to validation pairs, and the loss that it makes a way out of.

    - ``val/ccmr_mask/matching`` and ``val/ccmr_mask/other``: mean of the mask, from exp(-alpha) to 1.
    - ``val/shared_cosine_loss/{opposite,orthogonal,equal}``: contrastive loss of a manifold that tells no pair from
      another and gives all of them the cosine -1, 0 or 1, at the run's temperature and batch size.
    """

    stages = (ManifoldModule,)

    def collect(self, batch: dict[str, Any], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Picks the encoders' embeddings."""
        return {name: batch[name] for name in ("visual", "audio")}

    def measure(self, trainer: Trainer, module: ManifoldModule, rows: dict[str, Tensor]) -> dict[str, float]:
        """Computes what the class logs."""
        options = module.contrastive
        mask = ccmr_mask(
            rows["visual"],
            rows["audio"],
            options.ccmr_alpha,
            ccmr_mask_diagonal=options.ccmr_mask_diagonal,
            mask_type=module.loss_terms.mask_type,
        )
        matching = torch.eye(len(mask), dtype=torch.bool, device=mask.device)
        means = {"matching": float(mask[matching].mean()), "other": float(mask[~matching].mean())}
        temperature, size = float(module.manifold.temperature), data_of(trainer).batch_size
        losses = {
            name: shared_cosine_loss(cosine, means["matching"], means["other"], temperature, size)
            for name, cosine in SHARED_COSINES.items()
        }
        return {f"ccmr_mask/{name}": value for name, value in means.items()} | {
            f"shared_cosine_loss/{name}": value for name, value in losses.items()
        }


def shared_cosine_loss(cosine: float, matching: float, other: float, temperature: float, batch_size: int) -> float:
    """Computes the contrastive loss (Eq. 3) where all pairs of a batch have one cosine.

    log(1 + (N - 1) exp(tau c (m_other - m_matching))), with means of the mask.

    Args:
        cosine: c of all pairs.
        matching: mask of the matching pairs.
        other: mean mask of the others.
        temperature: tau, which multiplies cosines.
        batch_size: N.
    """
    return math.log1p((batch_size - 1) * math.exp(temperature * cosine * (other - matching)))
