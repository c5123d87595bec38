"""The terms of L_fold (paper, Eq. 3-5) for a batch of pairs, and the teacher's word on it."""

import torch
from torch import Tensor

from lightning_ss2a.losses import ContrastiveOptions, consistency_loss, contrastive_loss, reconstruction_loss
from lightning_ss2a.losses.contrastive import CcmrMask
from lightning_ss2a.models import DiagonalGaussian, Manifold
from lightning_ss2a.training.variational import SamplingOptions, embed

Batch = dict[str, Tensor]


class ManifoldLosses:
    """Losses of a manifold.

    Args:
        manifold: the networks to train.
        sampling: what the losses see of an embedding's Gaussian.
        contrastive: of L_c.
        kl_weight: λ_1 of Eq. 5.

    Attributes:
        mask_type: computes the mask of L_c; studies put another one here.
    """

    mask_type = CcmrMask

    def __init__(
        self, manifold: Manifold, sampling: SamplingOptions, contrastive: ContrastiveOptions, kl_weight: float
    ) -> None:
        self.manifold, self.sampling, self.contrastive, self.kl_weight = manifold, sampling, contrastive, kl_weight

    def all_terms(
        self, batch: Batch, teacher: Manifold | None = None, consistency_weight: float | Tensor = 0.0
    ) -> dict[str, Tensor]:
        """Computes ``contrastive``, ``reconstruction``, ``kl`` and their weighted sum ``loss``.

        With a teacher ``consistency`` too, which is then part of the sum.
        """
        visual, audio = self.manifold.project_visual(batch["visual"]), self.manifold.project_audio(batch["audio"])
        visual_embedding, audio_embedding = self.embed(visual), self.embed(audio)
        contrastive = contrastive_loss(
            visual_embedding,
            audio_embedding,
            self.manifold.temperature,
            visual=batch["visual"],
            audio=batch["audio"],
            options=self.contrastive,
            mask_type=self.mask_type,
        )
        reconstruction, reconstruction_kl = self._reconstruct(batch["audio"], audio_embedding, visual_embedding)
        kl = visual.kl() + audio.kl() + reconstruction_kl
        loss = contrastive + reconstruction + self.kl_weight * kl
        terms = {"loss": loss, "contrastive": contrastive, "reconstruction": reconstruction, "kl": kl}
        if teacher is not None:
            consistency = self._consistency(batch, teacher, visual_embedding, audio_embedding)
            terms |= {"loss": loss + consistency_weight * consistency, "consistency": consistency}
        return terms

    def reconstructor_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Computes the terms of L_fold that depend on the reconstructor; nothing flows back to the projectors."""
        with torch.no_grad():
            visual_embedding = self.embed(self.manifold.project_visual(batch["visual"]))
            audio_embedding = self.embed(self.manifold.project_audio(batch["audio"]))
        reconstruction, kl = self._reconstruct(batch["audio"], audio_embedding, visual_embedding)
        loss = reconstruction + self.kl_weight * kl
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def embed(self, gaussian: DiagonalGaussian) -> Tensor:
        """Returns what the losses see of a Gaussian: its mean, or a sample."""
        return embed(gaussian, self.sampling)

    def _reconstruct(self, audio: Tensor, audio_embedding: Tensor, visual_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Computes L_r and the reconstructor's KL, from both modalities in one pass."""
        reconstructed = self.manifold.reconstruct_audio(torch.cat([audio_embedding, visual_embedding]))
        from_audio, from_visual = self.embed(reconstructed).chunk(2)
        return reconstruction_loss(audio, from_audio, from_visual), reconstructed.kl()

    def _consistency(self, batch: Batch, teacher: Manifold, visual: Tensor, audio: Tensor) -> Tensor:
        """Compares what the student's other losses see, dropout and sampling included, with the teacher's means."""
        with torch.no_grad():
            teacher_visual = teacher.project_visual(batch["visual"]).mean
            teacher_audio = teacher.project_audio(batch["audio"]).mean
        return consistency_loss(visual, audio, teacher_visual, teacher_audio)
