"""The released weights' trunk against its formula."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm

from lightning_ss2a.models import PublishedMLP, VariationalMLP


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with norms that scale and shift, in evaluation mode."""
    torch.manual_seed(seed)
    for norm in (m for m in model.modules() if isinstance(m, nn.LayerNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return model.eval()


def normed(layer: nn.Linear, norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return layer_norm(layer(x), norm.normalized_shape, norm.weight, norm.bias)


@pytest.mark.parametrize("hidden_widths", [[5], [6, 7], [7, 9, 8], [6, 6, 8, 5], [6, 7, 8, 9, 10, 11]])
def test_equals_the_formula(hidden_widths: list[int]):
    model = lively(PublishedMLP(4, hidden_widths, dropout=0.3))
    inputs = torch.randn(2, 3, 4)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    features = layers.pop(0)(inputs)
    while len(norms) > 1:
        first, second, shortcut = layers[:3]
        inner = gelu(normed(first, norms[0], features))
        features = gelu(shortcut(features) + normed(second, norms[1], inner))
        layers, norms = layers[3:], norms[2:]
    if norms:  # a layer without a partner
        features = gelu(normed(layers.pop(), norms.pop(), features))
    assert not layers
    torch.testing.assert_close(model(inputs), features)
    assert features.shape == (2, 3, hidden_widths[-1])


def test_dropout_acts_in_training_only_and_gradients_reach_every_parameter():
    model = lively(PublishedMLP(6, [8, 8, 9, 7], dropout=0.5))
    inputs = torch.randn(8, 6)
    assert torch.equal(model(inputs), model(inputs))
    assert not torch.equal(model.train()(inputs), model(inputs))
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.5}
    model(inputs).square().sum().backward()
    assert all(parameter.grad.norm() > 0 for parameter in model.parameters())


def test_it_is_the_trunk_of_the_published_variational_mlp():
    model = VariationalMLP(6, [8, 8, 8], 4, input_scaling=False, variant="published", input_bias=False)
    assert isinstance(model.blocks, PublishedMLP)
    assert model.blocks.input.bias is None
    inputs = torch.randn(3, 6)
    model.eval()
    torch.testing.assert_close(model(inputs).mean, model.mean_head(model.blocks(inputs)))
    assert VariationalMLP(6, [8], 4, variant="published").blocks.input.bias is not None


def test_bad_widths_are_named():
    with pytest.raises(ValueError, match="hidden_widths must name at least one layer"):
        PublishedMLP(4, [], 0.0)
