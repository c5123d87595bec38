"""Residual MLP with a Gaussian at its end: υ, φ and χ of the paper (supplement 2.2, Fig. 5a).

Shapes: ... any leading dimensions, D width.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from lightning_ss2a.models.layers.embeddings import unit_variance
from lightning_ss2a.models.layers.gaussian import DiagonalGaussian
from lightning_ss2a.models.layers.linear import apply_linear
from lightning_ss2a.models.layers.published_mlp import PublishedMLP
from lightning_ss2a.models.layers.residual_mlp import ResidualMLP

Variant = Literal["paper", "published"]


class VariationalMLP(nn.Module):
    """A residual trunk and two linear heads, mean and log-variance.

    Embeddings of CLIP and CLAP are unit vectors, whose coordinates (about 1 / sqrt(width)) an MLP without normalisation
    hardly sees beside its own sampling noise. So inputs are brought to unit variance by default (L2-normalised, then
    multiplied by sqrt(width), whatever their norm was), and the log-variance head starts as a constant.

    Args:
        input_width: width of the inputs.
        hidden_widths: widths of the layers in order, at least one.
        output_width: width of the Gaussian.
        dropout: probability of zeroing a unit after each layer, in [0, 1).
        input_scaling: bring inputs to unit variance; ``False`` takes them as they are.
        initial_log_variance: log-variance of every output before training.
        variant: trunk: of the ``paper``'s text (``ResidualMLP``) or of the ``published`` weights (``PublishedMLP``).
        input_bias: whether the leading Linear of ``published`` has a bias; the paper's always has.

    Raises:
        ValueError: If a width is not positive, ``hidden_widths`` is empty, ``dropout`` is out of range or ``variant``
            is unknown.

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
        input_bias: bool = True,
    ) -> None:
        super().__init__()
        _check_arguments(output_width, variant)
        self.input_width = input_width
        self.input_scaling = input_scaling
        self.blocks = (
            ResidualMLP(input_width, hidden_widths, dropout)
            if variant == "paper"
            else PublishedMLP(input_width, hidden_widths, dropout, input_bias)
        )
        self.mean_head = nn.Linear(hidden_widths[-1], output_width)
        self.log_variance_head = nn.Linear(hidden_widths[-1], output_width)
        nn.init.zeros_(self.log_variance_head.weight)
        nn.init.constant_(self.log_variance_head.bias, initial_log_variance)

    def forward(self, inputs: Tensor) -> DiagonalGaussian:
        """Infers the Gaussian of each input.

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
            inputs = unit_variance(inputs)
        features = self.blocks(inputs)
        return DiagonalGaussian(*apply_linear(features, self.mean_head, self.log_variance_head))


def _check_arguments(output_width: int, variant: str) -> None:
    if output_width < 1:
        raise ValueError(f"output_width must be at least 1, got {output_width}")
    if variant not in get_args(Variant):
        raise ValueError(f"variant must be 'paper' or 'published', got {variant!r}")
