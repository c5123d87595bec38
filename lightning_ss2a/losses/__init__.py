"""Losses of the paper as pure functions of tensors (Eq. 3-7)."""

from lightning_ss2a.losses.consistency import consistency_loss
from lightning_ss2a.losses.contrastive import ContrastiveOptions, ccmr_mask, contrastive_loss
from lightning_ss2a.losses.gather import gather_with_gradient
from lightning_ss2a.losses.reconstruction import cosine_distance_loss, reconstruction_loss

__all__ = [
    "ContrastiveOptions",
    "ccmr_mask",
    "consistency_loss",
    "contrastive_loss",
    "cosine_distance_loss",
    "gather_with_gradient",
    "reconstruction_loss",
]
