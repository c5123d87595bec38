import pytest
import torch

from lightning_ss2a.models import Remixer, RemixerOptions
from lightning_ss2a.models.remixer_cache import RemixerCache

OPTIONS = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "published": {"variant": "published", "mask_padding": False, "input_scaling": False},
    "manifold only": {"conditions": "manifold"},
    "residual": {"residual": "mean"},
    "residual, two layers": {"residual": "mean", "num_layers": 2},
    "weighted residual": {"residual": "weighted_mean"},
    "weighted residual, two layers": {"residual": "weighted_mean", "num_layers": 2},
}


def build(**options) -> Remixer:
    torch.manual_seed(0)
    options = RemixerOptions(width=8, num_heads=2, head_widths=(9,), max_slots=6, **options)
    remixer = Remixer(6, 5, 4, options).double().eval()
    torch.nn.init.normal_(remixer.mean_head[-1].weight)
    if options.residual == "weighted_mean":
        torch.nn.init.normal_(remixer.loudness.weight)
    return remixer


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("open_slot", [0, 2, 3])
def test_equals_the_remixer_with_the_slot_filled(options: dict, open_slot: int):
    remixer = build(**options)
    tokens = torch.randn(3, 4, 6, dtype=torch.double), torch.randn(3, 4, 5, dtype=torch.double)
    valid = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    heard = None
    if "residual" in options:
        heard = torch.randn(3, 4, 4, dtype=torch.double)
        heard[:, open_slot] = 0  # it may come and go, and the start stays
    cache = RemixerCache(remixer, *tokens, valid, open_slot, heard)
    rows, filled = torch.tensor([2, 0, 1]), torch.tensor([True, True, False])
    new = torch.randn(3, 6, dtype=torch.double), torch.randn(3, 5, dtype=torch.double)
    ours = cache(rows, *new, filled)
    whole = [x[rows].clone() for x in (*tokens, valid)]
    for part, value in zip(whole, (*new, filled), strict=True):
        part[:, open_slot] = value
    expected = remixer(*whole, None if heard is None else heard[rows])
    torch.testing.assert_close(ours.mean, expected.mean)
    torch.testing.assert_close(ours.log_variance, expected.log_variance)


@pytest.mark.parametrize(("num_layers", "recomputed"), [(1, 1), (2, 5)])
def test_a_call_costs_one_token_with_one_layer(num_layers: int, recomputed: int):
    remixer = build(num_layers=num_layers)
    tokens = torch.randn(2, 4, 6, dtype=torch.double), torch.randn(2, 4, 5, dtype=torch.double)
    cache = RemixerCache(remixer, *tokens, torch.ones(2, 4, dtype=torch.bool), 3)
    keys, projected = [], []
    remixer.blocks[0].attention.key.register_forward_hook(lambda _, inputs, __: keys.append(inputs[0].shape[1]))
    remixer.input.register_forward_hook(lambda _, inputs, __: projected.append(inputs[0].shape[1]))
    cache(torch.tensor([1]), tokens[0][:1, 3], tokens[1][:1, 3], torch.tensor([True]))
    assert (keys, projected) == ([recomputed], [1])
