"""What a sound looks like: CLAP embedding to CLIP's image space, so that CLIP can judge sound (section 8.2).

Shapes: ... any leading dimensions, A audio width, V visual width.
Source: Wav2CLIP (Wu et al., ICASSP 2022) does this from waveforms for ViT-B/32; the paper's section 8.2 misses one for
the ViT-L/14 that its other parts use. This one starts from CLAP embeddings; its sizes are ours.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ss2a.models.layers.embeddings import check_sizes, unit_variance
from lightning_ss2a.models.layers.residual_mlp import ResidualMLP
from lightning_ss2a.models.layers.temperature import bounded_temperature, initial_log_temperature
from lightning_ss2a.options import OptionCheck


@dataclass(frozen=True)
class AudioToVisualOptions:
    """Architecture of an ``AudioToVisual``; the sizes are ours.

    Args:
        hidden_widths: layers of the trunk, see ``ResidualMLP``.
        dropout: probability of zeroing a unit, in [0, 1).
        input_scaling: bring inputs to unit variance; false takes them as they are.
    """

    hidden_widths: tuple[int, ...] = (1024, 1024, 1024, 1024)
    dropout: float = 0.2
    input_scaling: bool = True

    def __post_init__(self) -> None:
        check = OptionCheck("model.translator")
        check.widths(hidden_widths=self.hidden_widths)
        check.probability(dropout=self.dropout)

    def architecture(self) -> "AudioToVisualOptions":
        """Returns the same, without what has no part in trained weights."""
        return replace(self, dropout=0.0)


class AudioToVisual(nn.Module):
    """``ResidualMLP`` and a Linear from audio embeddings to visual embeddings of one norm.

    Attributes:
        visual_norm: norm of every output, a scalar buffer, 1 until it is set, for example to the mean norm of the
            training visuals. It is part of the state dict.
        log_temperature: logarithm of the learned logit scale for a contrastive loss, starts at log(1 / 0.07).

    Args:
        audio_width: A (512 for CLAP).
        visual_width: V (768 for CLIP ViT-L/14).
        options: architecture.

    Raises:
        ValueError: If a width is not positive.

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
        self, audio_width: int, visual_width: int, options: AudioToVisualOptions = AudioToVisualOptions()
    ) -> None:
        super().__init__()
        check_sizes(visual_width=visual_width, audio_width=audio_width)
        self.audio_width, self.options = audio_width, options
        self.trunk = ResidualMLP(audio_width, options.hidden_widths, options.dropout)
        self.output = nn.Linear(options.hidden_widths[-1], visual_width)
        self.register_buffer("visual_norm", torch.ones(()))
        self.log_temperature = initial_log_temperature()

    @property
    def temperature(self) -> Tensor:
        """Logit scale of the contrastive loss, a scalar in [1, 100]; at a bound it still learns its way back."""
        return bounded_temperature(self.log_temperature)

    def forward(self, audio: Tensor) -> Tensor:
        """Maps audio embeddings into the image space.

        Args:
            audio: ``[..., A]``.

        Returns:
            Embeddings of norm ``visual_norm``, ``[..., V]``.

        Raises:
            ValueError: If the audio's width is another.
        """
        if audio.shape[-1] != self.audio_width:
            raise ValueError(f"audio has width {audio.shape[-1]}, expected {self.audio_width}")
        features = self.trunk(unit_variance(audio) if self.options.input_scaling else audio)
        return F.normalize(self.output(features), dim=-1) * self.visual_norm
