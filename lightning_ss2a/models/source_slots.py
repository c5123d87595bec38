"""The sound sources of scenes as the Remixer reads them: tokens [e; v], whatever modality a source comes from.

Shapes: B scenes, S slots, V visual width, A audio width, M manifold width.
Paper: "Sound Source Remixer" (Eq. 8) and "Sound Source Perception"; supplement 8.2 for audio.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ss2a.models.layers.embeddings import weighted_directions
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.manifold import Manifold


@dataclass(frozen=True)
class SourceSlots:
    """Sources of each scene, in no particular order.

    Attributes:
        cmss: Gaussian of e of each slot, ``[B, S, M]``.
        visual: v of each slot, ``[B, S, V]``; zero for a source of audio without a translator.
        valid: which slots hold a source, bool ``[B, S]``. Others may hold anything.
        weight: of each slot in Cycle Mix's score and in the mean of the sources, ``[B, S]``: 0 for a global embedding,
            which is no source, else 1.
    """

    cmss: DiagonalGaussian
    visual: Tensor
    valid: Tensor
    weight: Tensor

    def tokens(self, draws: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what ``Remixer`` takes: e, v and the mask.

        Args:
            draws: samples of e that are averaged; 0: its mean.
        """
        e = self.cmss.sample(draws) if draws else self.cmss.mean
        return e, self.visual, self.valid


def visual_slots(
    visual: Tensor, valid: Tensor, project_visual: Callable[[Tensor], DiagonalGaussian], weight: float = 1.0
) -> SourceSlots:
    """Makes slots of things seen (or of text, translated to the visual space).

    Args:
        visual: v of each source, ``[B, S, V]``.
        valid: which there are, bool ``[B, S]``.
        project_visual: υ, such as ``manifold.project_visual``.
        weight: of each in Cycle Mix's score; 0 for global embeddings.
    """
    return SourceSlots(project_visual(visual), visual, valid, torch.full_like(visual[..., 0], weight))


def audio_slots(
    audio: Tensor, valid: Tensor, manifold: Manifold, translate: Callable[[Tensor], Tensor] | None = None
) -> SourceSlots:
    """Makes slots of things heard.

    Args:
        audio: embedding of each source, ``[B, S, A]``.
        valid: which there are, bool ``[B, S]``.
        manifold: gives e = φ(a).
        translate: gives v, ``[B, S, A] -> [B, S, V]``, such as an ``AudioToVisual``; None: v = 0, as in the paper.
    """
    width = manifold.visual_projector.input_width
    visual = audio.new_zeros(*audio.shape[:-1], width) if translate is None else translate(audio)
    return SourceSlots(manifold.project_audio(audio), visual, valid, torch.ones_like(audio[..., 0]))


def join_slots(parts: Sequence[SourceSlots]) -> SourceSlots:
    """Joins slots of the same scenes side by side."""
    cmss = DiagonalGaussian(
        torch.cat([part.cmss.mean for part in parts], dim=1),
        torch.cat([part.cmss.log_variance for part in parts], dim=1),
    )
    visual = torch.cat([part.visual for part in parts], dim=1)
    valid = torch.cat([part.valid for part in parts], dim=1)
    return SourceSlots(cmss, visual, valid, torch.cat([part.weight for part in parts], dim=1))


def fill_slots(
    slots: SourceSlots, count: int, project_visual: Callable[[Tensor], DiagonalGaussian], weight: float = 1.0
) -> SourceSlots:
    """Makes slots without a source slots of nothing, which are attended to, as the released weights know them.

    A slot of nothing has v = 0 and e = υ(0). They are appended to scenes of fewer slots than ``count``, too.

    Args:
        slots: of B scenes.
        count: slots that every scene has afterwards, or more if it had more.
        project_visual: υ, such as ``manifold.project_visual``; ``zero_projection`` for composed sources.
        weight: of a slot of nothing in Cycle Mix's score.

    Returns:
        The slots, all of them valid.
    """
    missing = max(0, count - slots.valid.shape[1])
    there, weights = F.pad(slots.valid, (0, missing)), F.pad(slots.weight, (0, missing))
    visual = F.pad(slots.visual, (0, 0, 0, missing)).masked_fill(~there.unsqueeze(-1), 0)
    nothing = project_visual(torch.zeros_like(visual[:1, :1]))
    mean, log_variance = (
        torch.where(there.unsqueeze(-1), F.pad(moment, (0, 0, 0, missing)), of_nothing)
        for moment, of_nothing in (
            (slots.cmss.mean, nothing.mean),
            (slots.cmss.log_variance, nothing.log_variance),
        )
    )
    return SourceSlots(
        DiagonalGaussian(mean, log_variance), visual, torch.ones_like(there), weights.masked_fill(~there, weight)
    )


def zero_projection(width: int) -> Callable[[Tensor], DiagonalGaussian]:
    """Makes what stands for υ where sources are composed by hand, so that slots of nothing have e = 0 without noise.

    So the published code leaves them in scenes of pictures, texts and sounds; its first slot, that of the whole
    picture, is one of them.

    Args:
        width: M.
    """

    def project(visual: Tensor) -> DiagonalGaussian:
        zero = visual.new_zeros(*visual.shape[:-1], width)
        return DiagonalGaussian(zero, torch.full_like(zero, -torch.inf))

    return project


def source_audio(slots: SourceSlots, manifold: Manifold) -> Tensor:
    """Computes the unit χ(e_m) of each slot times its weight, ``[B, S, A]``; weights of a scene sum to 1.

    Slots of weight 0 do not count, unless a scene has no other; then its valid ones count alike.
    """
    weights = slots.weight.masked_fill(~slots.valid, 0)
    weights = torch.where((weights > 0).any(1, keepdim=True), weights, slots.valid.to(weights))
    return weighted_directions(manifold.reconstruct_audio(slots.cmss.mean).mean, weights)


def mean_of_sources(slots: SourceSlots, manifold: Manifold) -> Tensor:
    """Averages the unit χ(e_m) of each scene's sources by their weights, ``[B, A]``: mixing without a Remixer."""
    return source_audio(slots, manifold).sum(1)
