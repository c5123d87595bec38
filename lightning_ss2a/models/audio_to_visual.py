"""What a sound looks like: CLAP embedding to CLIP's image space, so that CLIP can judge sound (section 8.2).

Shapes: ... any leading dimensions, A audio width, V visual width.
Source: Wav2CLIP (Wu et al., ICASSP 2022) does this from waveforms for ViT-B/32; the paper's section 8.2 misses one for
the ViT-L/14 that its other parts use. This one starts from CLAP embeddings; its sizes are ours.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ss2a.models.layers.embeddings import unit_variance
from lightning_ss2a.models.layers.residual_mlp import ResidualMLP
from lightning_ss2a.models.layers.temperature import bounded_temperature, initial_log_temperature

HIDDEN_WIDTHS = (1024, 1024, 1024, 1024)


class AudioToVisual(nn.Module):
    """``ResidualMLP`` and a Linear from audio embeddings to visual embeddings of one norm.

    Attributes:
        visual_norm: norm of every output, a scalar buffer, 1 until it is set, for example to the mean norm of the
            training visuals. It is part of the state dict.
        log_temperature: logarithm of the learned logit scale for a contrastive loss, starts at log(1 / 0.07).

    Args:
        audio_width: A (512 for CLAP).
        visual_width: V (768 for CLIP ViT-L/14).
        hidden_widths: layers of the trunk, see ``ResidualMLP``.
        dropout: probability of zeroing a unit, in [0, 1).
        input_scaling: bring inputs to unit variance; ``False`` takes them as they are.

    Raises:
        ValueError: If a width is not positive, ``hidden_widths`` is empty or ``dropout`` is out of range.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import AudioToVisual
        >>> model = AudioToVisual(512, 768)
        >>> _ = model.visual_norm.fill_(10.0)
        >>> model(torch.randn(4, 512)).norm(dim=-1).round().detach()
        tensor([10., 10., 10., 10.])
    """

    visual_norm: Tensor

    def __init__(
        self,
        audio_width: int,
        visual_width: int,
        hidden_widths: Sequence[int] = HIDDEN_WIDTHS,
        dropout: float = 0.2,
        input_scaling: bool = True,
    ) -> None:
        super().__init__()
        if visual_width < 1:
            raise ValueError(f"visual_width must be at least 1, got {visual_width}")
        if audio_width < 1:
            raise ValueError(f"audio_width must be at least 1, got {audio_width}")
        self.audio_width, self.input_scaling = audio_width, input_scaling
        self.trunk = ResidualMLP(audio_width, hidden_widths, dropout)
        self.output = nn.Linear(hidden_widths[-1], visual_width)
        self.register_buffer("visual_norm", torch.ones(()))
        self.log_temperature = initial_log_temperature()

    @property
    def temperature(self) -> Tensor:
        """Logit scale of the contrastive loss, a scalar in [1, 100]; at a bound it still learns its way back."""
        return bounded_temperature(self.log_temperature)

    def forward(self, audio: Tensor) -> Tensor:
        """Map audio embeddings into the image space.

        Args:
            audio: ``[..., A]``.

        Returns:
            Embeddings of norm ``visual_norm``, ``[..., V]``.

        Raises:
            ValueError: If the audio's width is another.
        """
        if audio.shape[-1] != self.audio_width:
            raise ValueError(f"audio has width {audio.shape[-1]}, expected {self.audio_width}")
        features = self.trunk(unit_variance(audio) if self.input_scaling else audio)
        return F.normalize(self.output(features), dim=-1) * self.visual_norm
