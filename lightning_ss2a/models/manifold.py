"""The cross-modal sound source manifold (CMSS): two projectors, a reconstructor and a temperature.

Shapes: ... any leading dimensions, V visual width, A audio width, M manifold width.
Paper: "Cross-Modal Sound Source Manifold" (Eq. 2-5) and supplement 2.2; widths from the published configuration.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.temperature import bounded_temperature, initial_log_temperature
from lightning_ss2a.models.layers.variational_mlp import Variant, VariationalMLP

PROJECTOR_WIDTHS = (768, 768, 1536, 1536, 3072, 3072)
RECONSTRUCTOR_WIDTHS = (768, 768, 896, 896, 1024, 1024, 2048, 2048)


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
        manifold_width: width of the manifold.
        projector_widths: layers of both projectors.
        reconstructor_widths: layers of the reconstructor.
        dropout: probability of zeroing a unit, in [0, 1).
        input_scaling: bring each module's inputs to unit variance.
        initial_log_variance: log-variance of every output before training.
        variant: block of the MLPs, see ``VariationalMLP``.

    Raises:
        ValueError: If an argument is out of range (see ``VariationalMLP``).

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import Manifold
        >>> manifold = Manifold(768, 512, projector_widths=[64, 64], reconstructor_widths=[64, 64])
        >>> cmss = manifold.project_visual(torch.randn(4, 768)).mean
        >>> cmss.shape, manifold.reconstruct_audio(cmss).mean.shape
        (torch.Size([4, 768]), torch.Size([4, 512]))
    """

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        manifold_width: int = 768,
        projector_widths: Sequence[int] = PROJECTOR_WIDTHS,
        reconstructor_widths: Sequence[int] = RECONSTRUCTOR_WIDTHS,
        dropout: float = 0.2,
        input_scaling: bool = True,
        initial_log_variance: float = -4.0,
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        options = (dropout, input_scaling, initial_log_variance, variant)
        self.visual_projector = VariationalMLP(visual_width, projector_widths, manifold_width, *options)
        self.audio_projector = VariationalMLP(audio_width, projector_widths, manifold_width, *options)
        self.audio_reconstructor = VariationalMLP(manifold_width, reconstructor_widths, audio_width, *options)
        self.log_temperature = initial_log_temperature()

    @property
    def temperature(self) -> Tensor:
        """Logit scale τ of Eq. 3, a scalar in [1, 100]; at a bound it still learns its way back."""
        return bounded_temperature(self.log_temperature)

    def project_visual(self, visual: Tensor) -> DiagonalGaussian:
        """Project visual embeddings (υ of Eq. 2), ``[..., V] -> [..., M]``."""
        return self.visual_projector(visual)

    def project_audio(self, audio: Tensor) -> DiagonalGaussian:
        """Project audio embeddings (φ of Eq. 2), ``[..., A] -> [..., M]``."""
        return self.audio_projector(audio)

    def reconstruct_audio(self, cmss: Tensor) -> DiagonalGaussian:
        """Map manifold embeddings back to audio embeddings (χ of Eq. 4), ``[..., M] -> [..., A]``."""
        return self.audio_reconstructor(cmss)
