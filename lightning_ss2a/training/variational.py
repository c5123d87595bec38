"""What the losses see of the Gaussian that a variational network gives."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_ss2a.losses import cosine_distance_loss
from lightning_ss2a.models import DiagonalGaussian


def embed(gaussian: DiagonalGaussian, hparams: Mapping[str, Any]) -> Tensor:
    """Its mean, or a sample, [..., D].

    Args:
        gaussian: of width D.
        hparams: ``embedding``, ``mean`` or ``sample``, and ``draws``, samples averaged into one.
    """
    return gaussian.mean if hparams["embedding"] == "mean" else gaussian.sample(hparams["draws"])


def cosine_losses(gaussian: DiagonalGaussian, audio: Tensor, hparams: Mapping[str, Any]) -> dict[str, Tensor]:
    """|1 - cos| of the embedding and the audio, ``cosine``, the divergence, ``kl``, and their weighted sum, ``loss``.

    Args:
        gaussian: of the predicted audio embedding, [B, A] (Eq. 9 and 10).
        audio: true audio embeddings, [B, A].
        hparams: as for :func:`embed`, and ``kl_weight``.
    """
    cosine, kl = cosine_distance_loss(embed(gaussian, hparams), audio), gaussian.kl()
    return {"loss": cosine + hparams["kl_weight"] * kl, "cosine": cosine, "kl": kl}
