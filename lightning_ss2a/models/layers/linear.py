"""Linear layers as a compiler takes them best."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def apply_linear(inputs: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """Applies linear layers to the same inputs.

    Eagerly each is called. Where a compiler traces this, all of them are one product, since joining weights is part of
    casting them there, and biases are left to what comes next; hooks of the layers are not called then.

    Args:
        inputs: ``[..., I]``.
        layers: at least one, from I to O each.

    Returns:
        their outputs in order, ``[..., O]`` each.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_ss2a.models.layers.linear import apply_linear
        >>> [y.shape for y in apply_linear(torch.randn(5, 4), nn.Linear(4, 3), nn.Linear(4, 2, bias=False))]
        [torch.Size([5, 3]), torch.Size([5, 2])]
    """
    if not torch.compiler.is_compiling():
        return tuple(layer(inputs) for layer in layers)
    weight = layers[0].weight if len(layers) == 1 else torch.cat([layer.weight for layer in layers])
    products = F.linear(inputs, weight)
    outputs = products.split([layer.out_features for layer in layers], -1)
    # In the dtype that a call has under autocast.
    return tuple(
        output if layer.bias is None else output + layer.bias.to(output.dtype)
        for output, layer in zip(outputs, layers, strict=True)
    )
