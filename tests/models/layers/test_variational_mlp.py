from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import elu, normalize

from lightning_ss2a.losses import contrastive_loss
from lightning_ss2a.models import VariationalMLP


def parameters_of(widths: list[int], output_width: int) -> int:
    """Parameters counted from the paper's description."""
    layers = sum(a * b + b for a, b in pairwise(widths))
    pairs = list(zip(widths[:-2:2], widths[2::2], strict=False))
    shortcuts = sum(a * b for a, b in pairs if a != b)
    return layers + shortcuts + 2 * (widths[-1] * output_width + output_width)


@pytest.mark.parametrize("hidden_widths", [[5], [6, 6], [7, 9], [6, 6, 8, 8, 10, 10], [6, 4, 3]])
def test_shapes_and_parameters(hidden_widths: list[int]):
    model = VariationalMLP(6, hidden_widths, 4)
    gaussian = model(torch.randn(2, 3, 6))
    assert gaussian.mean.shape == gaussian.log_variance.shape == (2, 3, 4)
    assert sum(p.numel() for p in model.parameters()) == parameters_of([6, *hidden_widths], 4)


def test_forward_equals_the_formula():
    model = VariationalMLP(6, [6, 6, 8, 9, 5], 4).eval()
    inputs = torch.randn(3, 6)
    linears = [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    first, second, third, fourth, shortcut, last = linears
    features = normalize(inputs) * 6**0.5
    features = features + elu(second(elu(first(features))))
    features = shortcut(features) + elu(fourth(elu(third(features))))
    features = elu(last(features))
    torch.testing.assert_close(model(inputs).mean, model.mean_head(features))
    assert shortcut.bias is None
    assert shortcut.weight.shape == (9, 6)


def test_dropout_acts_in_training_only():
    model = VariationalMLP(6, [16, 16], 4, dropout=0.5)
    inputs = torch.randn(3, 6)
    assert not torch.equal(model(inputs).mean, model(inputs).mean)
    model.eval()
    assert torch.equal(model(inputs).mean, model(inputs).mean)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.5}


def test_variance_starts_as_the_stated_constant_and_learns():
    model = VariationalMLP(6, [8, 8], 4, initial_log_variance=-3.0)
    gaussian = model(torch.randn(3, 6))
    assert torch.equal(gaussian.log_variance, torch.full((3, 4), -3.0))
    gaussian.log_variance.square().sum().backward()
    assert model.log_variance_head.weight.grad.norm() > 0


def test_gradients_reach_every_parameter():
    model = VariationalMLP(6, [6, 6, 8, 8, 7], 4)
    nn.init.normal_(model.log_variance_head.weight)
    model(torch.randn(8, 6)).kl().backward()
    assert all(parameter.grad.norm() > 0 for parameter in model.parameters())


def test_input_scaling_ignores_the_norm_and_can_be_switched_off():
    inputs = torch.randn(3, 6)
    scaled = VariationalMLP(6, [8, 8], 4).eval()
    torch.testing.assert_close(scaled(inputs).mean, scaled(100 * inputs).mean)
    raw = VariationalMLP(6, [8, 8], 4, input_scaling=False).eval()
    assert not torch.allclose(raw(inputs).mean, raw(100 * inputs).mean)
    raw.load_state_dict(scaled.state_dict())
    torch.testing.assert_close(raw(normalize(inputs) * 6**0.5).mean, scaled(inputs).mean)


def learned_recall(input_scaling: bool) -> float:
    """Recall@1 of training pairs after 60 steps on unit vectors, with sampling noise."""
    torch.manual_seed(0)
    visual = normalize(torch.randn(64, 128))
    audio = normalize(visual @ torch.randn(128, 96))
    models = [VariationalMLP(x.shape[1], [64, 64], 32, 0.0, input_scaling) for x in (visual, audio)]
    optimizer = torch.optim.AdamW([p for model in models for p in model.parameters()], lr=1e-3)
    for _ in range(60):
        embeddings = [model(x).sample() for model, x in zip(models, (visual, audio), strict=True)]
        optimizer.zero_grad()
        contrastive_loss(*embeddings, torch.tensor(14.0)).backward()
        optimizer.step()
    first, second = (normalize(model(x).sample()) for model, x in zip(models, (visual, audio), strict=True))
    return ((first @ second.T).argmax(1) == torch.arange(64)).double().mean().item()


def test_scaled_inputs_learn_where_raw_ones_do_not():
    assert learned_recall(input_scaling=True) > 0.9
    assert learned_recall(input_scaling=False) < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_widths": []}, "hidden_widths must name at least one layer"),
        ({"hidden_widths": [4, 0]}, "hidden_widths must be at least 1, got 0"),
        ({"input_width": 0}, "input_width must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"variant": "other"}, "variant must be 'paper' or 'published', got 'other'"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        VariationalMLP(**{"input_width": 4, "hidden_widths": [4], "output_width": 4, **options})


def test_wrong_input_width_is_named():
    with pytest.raises(ValueError, match="inputs have width 5, expected 6"):
        VariationalMLP(6, [4], 4)(torch.ones(2, 5))
