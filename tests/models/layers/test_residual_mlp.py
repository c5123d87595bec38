import hashlib

import pytest
import torch
from torch import nn
from torch.nn.functional import elu

from lightning_ss2a.models import ResidualMLP, VariationalMLP
from lightning_ss2a.models.layers.embeddings import unit_variance

# Of VariationalMLP(6, hidden_widths, 4) under seed 0, before the trunk stood on its own: sha256 of the state dict's
# names, its values and the next random number, and the mean for one row. Checkpoints and seeds of then must still work.
BEFORE = {
    (6, 6, 8, 8): (
        "0992da17738dec25ad658516ff0d18e73b6b820fe6e2b46f644abe4acc22001e",
        [0.196401, -0.54347, -1.048278, -0.72278],
    ),
    (6, 4, 3): (
        "adfffed67aebed7b04eb152519091db8001793591cdfe564ee16b57e4215a3af",
        [0.053259, -0.458144, 0.705742, -0.751065],
    ),
}


@pytest.mark.parametrize("hidden_widths", BEFORE)
def test_variational_mlp_is_what_it_was(hidden_widths: tuple[int, ...]):
    fingerprint, mean = BEFORE[hidden_widths]
    torch.manual_seed(0)
    model = VariationalMLP(6, hidden_widths, 4)
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    digest.update(torch.rand(1).numpy().tobytes())
    assert digest.hexdigest() == fingerprint
    torch.testing.assert_close(model.eval()(torch.linspace(-1, 1, 6)).mean, torch.tensor(mean), rtol=0, atol=2e-6)


def test_equals_the_formula():
    model = ResidualMLP(6, [6, 6, 8, 9, 5], dropout=0.3).eval()
    first, second, third, fourth, shortcut, last = (m for m in model.modules() if isinstance(m, nn.Linear))
    inputs = torch.randn(2, 3, 6)
    features = inputs + elu(second(elu(first(inputs))))
    features = shortcut(features) + elu(fourth(elu(third(features))))
    torch.testing.assert_close(model(inputs), elu(last(features)))
    assert shortcut.bias is None


def test_unit_variance():
    rows = torch.tensor([[3.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.2, 0.0, 1.6, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(unit_variance(rows), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_widths": []}, "hidden_widths must name at least one layer, got none"),
        ({"hidden_widths": [4, 0]}, "hidden_widths must be at least 1, got 0"),
        ({"input_width": 0}, "input_width must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ResidualMLP(**{"input_width": 4, "hidden_widths": [4], "dropout": 0.0, **options})
