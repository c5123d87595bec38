"""Residual MLP with a Gaussian at its end: υ, φ and χ of the paper (supplement 2.2, Fig. 5a).

Shapes: ... any leading dimensions, D width.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ss2a.models.gaussian import DiagonalGaussian

Variant = Literal["paper", "published"]


class VariationalMLP(nn.Module):
    """MLP of Linear, ELU and dropout with a residual every two layers and two linear heads, mean and log-variance.

    A residual is the identity where the two widths agree and a learned Linear where they do not; a last layer that has
    no partner stands without one.

    Embeddings of CLIP and CLAP are unit vectors, whose coordinates (about 1 / sqrt(width)) an MLP without normalisation
    hardly sees beside its own sampling noise. So inputs are brought to unit variance by default (L2-normalised, then
    multiplied by sqrt(width), whatever their norm was), and the log-variance head starts as a constant.

    Args:
        input_width: width of the inputs.
        hidden_widths: widths of the layers in order, at least one.
        output_width: width of the Gaussian.
        dropout: probability of zeroing a unit after each ELU, in [0, 1).
        input_scaling: bring inputs to unit variance; ``False`` takes them as they are.
        initial_log_variance: log-variance of every output before training.
        variant: ``paper``, the block described above. ``published`` names the block of the released weights
            (LayerNorm, GELU, learned shortcuts), which is not available yet.

    Raises:
        ValueError: If a width is not positive, ``hidden_widths`` is empty, ``dropout`` is out of range or ``variant``
            is unknown or not available.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import VariationalMLP
        >>> projector = VariationalMLP(512, [768, 768, 1536, 1536], 768)
        >>> projector(torch.randn(8, 512)).mean.shape
        torch.Size([8, 768])
    """

    def __init__(
        self,
        input_width: int,
        hidden_widths: Sequence[int],
        output_width: int,
        dropout: float = 0.2,
        input_scaling: bool = True,
        initial_log_variance: float = -4.0,
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        _check_arguments(input_width, hidden_widths, output_width, dropout, variant)
        self.input_width = input_width
        self.input_scaling = input_scaling
        widths = [input_width, *hidden_widths]
        blocks: list[nn.Module] = [
            _ResidualPair(*widths[start : start + 3], dropout) for start in range(0, len(widths) - 2, 2)
        ]
        if len(hidden_widths) % 2:
            blocks.append(_layer(widths[-2], widths[-1], dropout))
        self.blocks = nn.Sequential(*blocks)
        self.mean_head = nn.Linear(widths[-1], output_width)
        self.log_variance_head = nn.Linear(widths[-1], output_width)
        nn.init.zeros_(self.log_variance_head.weight)
        nn.init.constant_(self.log_variance_head.bias, initial_log_variance)

    def forward(self, inputs: Tensor) -> DiagonalGaussian:
        """Infer the Gaussian of each input.

        Args:
            inputs: embeddings, ``[..., input_width]``.

        Returns:
            Gaussian of width ``output_width``, ``[..., output_width]``.

        Raises:
            ValueError: If the inputs' width is another.
        """
        if inputs.shape[-1] != self.input_width:
            raise ValueError(f"inputs have width {inputs.shape[-1]}, expected {self.input_width}")
        if self.input_scaling:
            inputs = F.normalize(inputs, dim=-1) * self.input_width**0.5
        features = self.blocks(inputs)
        return DiagonalGaussian(self.mean_head(features), self.log_variance_head(features))


class _ResidualPair(nn.Module):
    """Two layers with a shortcut around them, ``[..., input] -> [..., output]``."""

    def __init__(self, input_width: int, middle_width: int, output_width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _layer(input_width, middle_width, dropout), _layer(middle_width, output_width, dropout)
        )
        same = input_width == output_width
        self.shortcut = nn.Identity() if same else nn.Linear(input_width, output_width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.shortcut(inputs) + self.layers(inputs)


def _layer(input_width: int, output_width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(input_width, output_width), nn.ELU(), nn.Dropout(dropout))


def _check_arguments(
    input_width: int, hidden_widths: Sequence[int], output_width: int, dropout: float, variant: str
) -> None:
    if not hidden_widths:
        raise ValueError("hidden_widths must name at least one layer, got none")
    for name, width in (
        ("input_width", input_width),
        ("output_width", output_width),
        *(("hidden_widths", width) for width in hidden_widths),
    ):
        if width < 1:
            raise ValueError(f"{name} must be at least 1, got {width}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    if variant == "published":
        raise ValueError("variant 'published' is not available yet: use 'paper'")
    if variant != "paper":
        raise ValueError(f"variant must be 'paper', got {variant!r}")
