"""Residual trunk of the released weights' MLPs: what ``ResidualMLP`` is to the paper's text.

Shapes: ... any leading dimensions, I input width, O width of the last layer, D width.
Source: the authors' inference code (wguo86/SSV2A, 7f01d5f).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_ss2a.models.layers.residual_mlp import check_trunk


class PublishedMLP(nn.Module):
    """A Linear, then layers of Linear, LayerNorm, dropout and GELU with a residual every two, ``[..., I] -> [..., O]``.

    A residual is a learned Linear, and GELU follows the sum. The first of ``hidden_widths`` is the width after the
    leading Linear, which nothing follows; the layers after it pair up, and a last one that has no partner stands
    without a residual.

    Args:
        input_width: I.
        hidden_widths: widths in order, at least one; the last is O.
        dropout: probability of zeroing a unit after each LayerNorm, in [0, 1).
        input_bias: whether the leading Linear has a bias; of the released weights χ has one, υ and φ have none.

    Raises:
        ValueError: If a width is not positive, ``hidden_widths`` is empty or ``dropout`` is out of range.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import PublishedMLP
        >>> PublishedMLP(512, [768, 768, 1536, 3072], dropout=0.2)(torch.randn(8, 512)).shape
        torch.Size([8, 3072])
    """

    def __init__(self, input_width: int, hidden_widths: Sequence[int], dropout: float, input_bias: bool = True) -> None:
        check_trunk(input_width, hidden_widths, dropout)
        super().__init__()
        self.input = nn.Linear(input_width, hidden_widths[0], bias=input_bias)
        blocks: list[nn.Module] = [
            _PublishedPair(hidden_widths[start], hidden_widths[start + 1], hidden_widths[start + 2], dropout)
            for start in range(0, len(hidden_widths) - 2, 2)
        ]
        if len(hidden_widths) % 2 == 0:
            blocks.append(nn.Sequential(*normalized_layer(hidden_widths[-2], hidden_widths[-1], dropout), nn.GELU()))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes features, ``[..., I] -> [..., O]``."""
        return self.blocks(self.input(inputs))


class _PublishedPair(nn.Module):
    """Two layers with a learned shortcut around them, ``[..., input] -> [..., output]``."""

    def __init__(self, input_width: int, middle_width: int, output_width: int, dropout: float) -> None:
        super().__init__()
        first = normalized_layer(input_width, middle_width, dropout)
        second = normalized_layer(middle_width, output_width, dropout)
        self.layers = nn.Sequential(*first, nn.GELU(), *second)
        self.shortcut = nn.Linear(input_width, output_width)
        self.end = nn.GELU()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(self.shortcut(inputs) + self.layers(inputs))


def normalized_layer(input_width: int, output_width: int, dropout: float) -> list[nn.Module]:
    """Makes a Linear, LayerNorm and dropout, which GELU follows sooner or later."""
    return [nn.Linear(input_width, output_width), nn.LayerNorm(output_width), nn.Dropout(dropout)]
