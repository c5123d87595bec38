"""What the losses see of the Gaussian that a variational network gives."""

from dataclasses import dataclass
from typing import Literal, get_args

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_ss2a.losses import cosine_distance_loss
from lightning_ss2a.models import DiagonalGaussian
from lightning_ss2a.options import OptionCheck

Embedding = Literal["sample", "mean"]


@dataclass(frozen=True)
class SamplingOptions:
    """What the losses see of a Gaussian.

    Args:
        embedding: a ``sample`` of it or its ``mean``.
        draws: samples averaged into one embedding, in closed form, at least 1.
    """

    embedding: Embedding = "sample"
    draws: int = 1

    def __post_init__(self) -> None:
        check = OptionCheck("model.sampling")
        check.one_of(get_args(Embedding), embedding=self.embedding)
        check.at_least(1, draws=self.draws)
        if self.draws > 1 and self.embedding == "mean":
            rank_zero_warn(
                f"model.sampling.draws={self.draws} has no effect with model.sampling.embedding=mean: nothing is drawn"
            )


def embed(gaussian: DiagonalGaussian, sampling: SamplingOptions) -> Tensor:
    """Returns the mean of a Gaussian of width D, or a sample of it, [..., D]."""
    return gaussian.mean if sampling.embedding == "mean" else gaussian.sample(sampling.draws)


def cosine_losses(
    gaussian: DiagonalGaussian, audio: Tensor, sampling: SamplingOptions, kl_weight: float
) -> dict[str, Tensor]:
    """Computes |1 - cos| of embedding and audio, ``cosine``, the divergence, ``kl``, and their weighted sum, ``loss``.

    Args:
        gaussian: of the predicted audio embedding, [B, A] (Eq. 9 and 10).
        audio: true audio embeddings, [B, A].
        sampling: what is compared with the audio.
        kl_weight: weight of the divergence.
    """
    cosine, kl = cosine_distance_loss(embed(gaussian, sampling), audio), gaussian.kl()
    return {"loss": cosine + kl_weight * kl, "cosine": cosine, "kl": kl}
