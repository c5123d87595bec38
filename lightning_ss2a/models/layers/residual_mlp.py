"""Residual trunk of the project's MLPs (supplement 2.2, Fig. 5a).

Shapes: ... any leading dimensions, I input width, O width of the last layer, D width.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from lightning_ss2a.models.layers.linear import apply_linear


class ResidualMLP(nn.Sequential):
    """Layers of Linear, ELU and dropout with a residual every two, ``[..., I] -> [..., O]``.

    A residual is the identity where the two widths agree and a learned Linear where they do not; a last layer that has
    no partner stands without one.

    Args:
        input_width: I.
        hidden_widths: widths of the layers in order, at least one; the last is O.
        dropout: probability of zeroing a unit after each ELU, in [0, 1).

    Raises:
        ValueError: If a width is not positive, ``hidden_widths`` is empty or ``dropout`` is out of range.

    Example:
        >>> import torch
        >>> from lightning_ss2a.models import ResidualMLP
        >>> ResidualMLP(512, [768, 768, 640], dropout=0.2)(torch.randn(8, 512)).shape
        torch.Size([8, 640])
    """

    def __init__(self, input_width: int, hidden_widths: Sequence[int], dropout: float) -> None:
        check_trunk(input_width, hidden_widths, dropout)
        widths = [input_width, *hidden_widths]
        blocks: list[nn.Module] = [
            _ResidualPair(widths[start], widths[start + 1], widths[start + 2], dropout)
            for start in range(0, len(widths) - 2, 2)
        ]
        if len(hidden_widths) % 2:
            blocks.append(_Layer(widths[-2], widths[-1], dropout))
        super().__init__(*blocks)


class _ResidualPair(nn.Module):
    """Two layers with a shortcut around them, ``[..., input] -> [..., output]``."""

    def __init__(self, input_width: int, middle_width: int, output_width: int, dropout: float) -> None:
        super().__init__()
        first, second = _Layer(input_width, middle_width, dropout), _Layer(middle_width, output_width, dropout)
        self.layers = nn.Sequential(first, second)
        same = input_width == output_width
        self.shortcut = nn.Identity() if same else nn.Linear(input_width, output_width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if isinstance(self.shortcut, nn.Identity):
            return inputs + self.layers(inputs)
        first, second = cast(tuple[_Layer, _Layer], tuple(self.layers))
        shortcut, middle = apply_linear(inputs, self.shortcut, first.linear)
        return shortcut + second(first.activate(middle))


class _Layer(nn.Sequential):
    """Linear, ELU and dropout, ``[..., input] -> [..., output]``."""

    def __init__(self, input_width: int, output_width: int, dropout: float) -> None:
        super().__init__(nn.Linear(input_width, output_width), nn.ELU(), nn.Dropout(dropout))

    def forward(self, inputs: Tensor) -> Tensor:
        (features,) = apply_linear(inputs, self.linear)
        return self.activate(features)

    @property
    def linear(self) -> nn.Linear:
        """What comes first."""
        return cast(nn.Linear, self[0])

    def activate(self, features: Tensor) -> Tensor:
        """Applies what follows it."""
        return self[2](self[1](features))


def check_trunk(input_width: int, hidden_widths: Sequence[int], dropout: float) -> None:
    """Raises ValueError for arguments that no trunk can have."""
    if not hidden_widths:
        raise ValueError("hidden_widths must name at least one layer, got none")
    for name, width in (("input_width", input_width), *(("hidden_widths", width) for width in hidden_widths)):
        if width < 1:
            raise ValueError(f"{name} must be at least 1, got {width}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
