"""The cross-modal sound source manifold (CMSS): two projectors, a reconstructor and a temperature.

Shapes: ... any leading dimensions, V visual width, A audio width, M manifold width.
Paper: "Cross-Modal Sound Source Manifold" (Eq. 2-5) and supplement 2.2; widths from the published configuration.
"""

from dataclasses import dataclass, replace
from typing import get_args

from torch import Tensor, nn

from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.temperature import bounded_temperature, initial_log_temperature
from lightning_ss2a.models.layers.variational_mlp import Variant, VariationalMLP
from lightning_ss2a.options import OptionCheck


@dataclass(frozen=True)
class ManifoldOptions:
    """Architecture of a ``Manifold``.

    Args:
        width: width M of the manifold.
        projector_widths: layers of both projectors.
        reconstructor_widths: layers of the reconstructor.
        dropout: probability of zeroing a unit, in [0, 1).
        input_scaling: bring each network's inputs to unit variance (see ``VariationalMLP``); false takes them as they
            are, as the released weights want it.
        initial_log_variance: log-variance of every output before training.
        variant: trunk of the MLPs, see ``VariationalMLP``.
    """

    width: int = 768
    projector_widths: tuple[int, ...] = (768, 768, 1536, 1536, 3072, 3072)
    reconstructor_widths: tuple[int, ...] = (768, 768, 896, 896, 1024, 1024, 2048, 2048)
    dropout: float = 0.2
    input_scaling: bool = True
    initial_log_variance: float = -4.0
    variant: Variant = "paper"

    def __post_init__(self) -> None:
        check = OptionCheck("model.manifold")
        check.at_least(1, width=self.width)
        check.widths(projector_widths=self.projector_widths, reconstructor_widths=self.reconstructor_widths)
        check.probability(dropout=self.dropout)
        check.one_of(get_args(Variant), variant=self.variant)

    def architecture(self) -> "ManifoldOptions":
        """Returns the same, without what has no part in trained weights."""
        return replace(self, dropout=0.0, initial_log_variance=0.0)


class Manifold(nn.Module):
    """Joint space of what sound sources look like and sound like.

    Attributes:
        visual_projector: υ, visual embedding to manifold.
        audio_projector: φ, audio embedding to manifold.
        audio_reconstructor: χ, manifold to audio embedding.
        log_temperature: logarithm of the learned logit scale τ of Eq. 3, starts at log(1 / 0.07).

    Args:
        visual_width: width of the visual embeddings (768 for CLIP ViT-L/14).
        audio_width: width of the audio embeddings (512 for CLAP).
        options: architecture; by default the published one.

    Raises:
        ValueError: If a width is not positive, or the options' ``variant`` is unknown.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import Manifold, ManifoldOptions
        >>> options = ManifoldOptions(projector_widths=(64, 64), reconstructor_widths=(64, 64))
        >>> manifold = Manifold(768, 512, options)
        >>> cmss = manifold.project_visual(torch.randn(4, 768)).mean
        >>> cmss.shape, manifold.reconstruct_audio(cmss).mean.shape
        (torch.Size([4, 768]), torch.Size([4, 512]))
    """

    def __init__(self, visual_width: int, audio_width: int, options: ManifoldOptions = ManifoldOptions()) -> None:
        super().__init__()
        self.visual_width, self.audio_width, self.options = visual_width, audio_width, options
        shared = (options.dropout, options.input_scaling, options.initial_log_variance, options.variant)
        projector = (options.projector_widths, options.width, *shared)
        self.visual_projector = VariationalMLP(visual_width, *projector, input_bias=False)
        self.audio_projector = VariationalMLP(audio_width, *projector, input_bias=False)
        self.audio_reconstructor = VariationalMLP(options.width, options.reconstructor_widths, audio_width, *shared)
        self.log_temperature = initial_log_temperature()

    @property
    def temperature(self) -> Tensor:
        """Logit scale τ of Eq. 3, a scalar in [1, 100]; at a bound it still learns its way back."""
        return bounded_temperature(self.log_temperature)

    def project_visual(self, visual: Tensor) -> DiagonalGaussian:
        """Projects visual embeddings (υ of Eq. 2), ``[..., V] -> [..., M]``."""
        return self.visual_projector(visual)

    def project_audio(self, audio: Tensor) -> DiagonalGaussian:
        """Projects audio embeddings (φ of Eq. 2), ``[..., A] -> [..., M]``."""
        return self.audio_projector(audio)

    def reconstruct_audio(self, cmss: Tensor) -> DiagonalGaussian:
        """Maps manifold embeddings back to audio embeddings (χ of Eq. 4), ``[..., M] -> [..., A]``."""
        return self.audio_reconstructor(cmss)
