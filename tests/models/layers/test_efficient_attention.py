import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import elu, gelu, layer_norm

from lightning_ss2a.models import AttentionBlock, EfficientAttention


def direct(attention: EfficientAttention, tokens: torch.Tensor, valid: torch.Tensor, queries: torch.Tensor):
    """Head by head, scene by scene, through the whole matrix of queries by tokens."""
    rows = []
    for scene, mask, asked in zip(tokens, valid, queries, strict=True):
        scene = scene[mask]
        width = scene.shape[1] // attention.num_heads
        heads = []
        for head in range(attention.num_heads):
            part = slice(head * width, (head + 1) * width)
            query = attention.query(asked)[:, part].softmax(1)
            key = attention.key(scene)[:, part].softmax(0 if attention.key_softmax == "sequence" else 1)
            heads.append(query @ key.T @ attention.value(scene)[:, part])
        rows.append(attention.output(torch.cat(heads, dim=1)))
    return torch.stack(rows)


@pytest.mark.parametrize("key_softmax", ["sequence", "features"])
@pytest.mark.parametrize("output_projection", [True, False])
def test_equals_the_direct_computation_with_gradients(key_softmax, output_projection):
    torch.manual_seed(0)
    attention = EfficientAttention(12, 3, key_softmax, output_projection).double()
    tokens = torch.randn(3, 6, 12, dtype=torch.double, requires_grad=True)
    queries = torch.randn(3, 2, 12, dtype=torch.double, requires_grad=True)
    valid = torch.tensor([[True] * 6, [True, False] * 3, [False] * 5 + [True]])
    inputs = [tokens, queries, *attention.parameters()]
    output, expected = attention(tokens, valid, queries), direct(attention, tokens, valid, queries)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(output)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), inputs) for x in (output, expected))
    for gradient, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, reference)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), key_softmax=st.sampled_from(["sequence", "features"]))
def test_padding_and_order_change_nothing(data, key_softmax):
    torch.manual_seed(0)
    attention = EfficientAttention(8, 2, key_softmax)
    count = data.draw(st.integers(1, 7))
    order = torch.tensor(data.draw(st.permutations(range(count))))
    padding = data.draw(st.integers(0, 5))
    tokens, query = torch.randn(1, count, 8), torch.randn(1, 1, 8)
    padded = torch.cat([torch.full((1, padding, 8), torch.nan), tokens[:, order]], dim=1)
    valid = torch.arange(count + padding)[None] >= padding
    expected = attention(tokens, valid[:, padding:], query)
    torch.testing.assert_close(attention(padded, valid, query), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_invalid_tokens_may_be_nan_in_gradients_too(variant):
    block = AttentionBlock(8, 2, variant=variant).eval()
    tokens = torch.randn(2, 4, 8)
    valid = torch.tensor([[True, True, False, True], [True, False, False, False]])
    tokens[~valid] = torch.nan
    tokens.requires_grad_()
    block(tokens, valid)[valid].sum().backward()
    for leaf in (tokens, *block.parameters()):
        assert leaf.grad.isfinite().all()
    assert (tokens.grad[~valid] == 0).all()


@pytest.mark.parametrize("key_softmax", ["sequence", "features"])
def test_contexts_of_parts_merge_into_that_of_the_whole(key_softmax):
    torch.manual_seed(0)
    attention = EfficientAttention(12, 3, key_softmax).double()
    tokens, query = 30 * torch.randn(2, 6, 12, dtype=torch.double), torch.randn(2, 1, 12, dtype=torch.double)
    valid = torch.rand(2, 6) > 0.3
    valid[0, :2] = False  # a part without tokens
    expected = attention(tokens, valid, query)
    first, second, third = (attention.context(tokens[:, p], valid[:, p]) for p in (slice(2), slice(2, 5), slice(5, 6)))
    torch.testing.assert_close(attention.read(query, first.merge(second).merge(third)), expected)
    torch.testing.assert_close(attention.read(query, third.merge(second.merge(first))), expected)


def test_large_keys_do_not_overflow():
    attention = EfficientAttention(8, 2)
    tokens, valid = 1e6 * torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)
    assert attention(tokens, valid, torch.randn(1, 1, 8)).isfinite().all()


def test_no_token_at_all_gives_a_zero_context():
    attention = EfficientAttention(8, 2, output_projection=False)
    for tokens, valid in (
        (torch.full((1, 3, 8), torch.nan), torch.zeros(1, 3)),
        (torch.ones(1, 0, 8), torch.ones(1, 0)),
    ):
        assert torch.equal(attention(tokens, valid.bool(), torch.randn(1, 2, 8)), torch.zeros(1, 2, 8))


def test_summing_keys_counts_tokens_and_averaging_does_not():
    token, query = torch.randn(1, 1, 8), torch.randn(1, 1, 8)
    for key_softmax, factor in (("sequence", 1), ("features", 3)):
        attention = EfficientAttention(8, 2, key_softmax, output_projection=False)
        one = attention(token, torch.ones(1, 1, dtype=torch.bool), query)
        three = attention(token.expand(1, 3, 8), torch.ones(1, 3, dtype=torch.bool), query)
        torch.testing.assert_close(three, factor * one)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("key_softmax", ["sequence", "features"])
def test_weights_times_values_are_the_attention(key_softmax, seed):
    torch.manual_seed(seed)
    attention = EfficientAttention(12, 3, key_softmax, output_projection=False).double()
    tokens, queries = torch.randn(3, 6, 12, dtype=torch.double), torch.randn(3, 2, 12, dtype=torch.double)
    valid = torch.tensor([[True] * 6, [True, False] * 3, [False] * 6])
    expected = attention(tokens, valid, queries).unflatten(-1, (3, 4))
    tokens[~valid] = torch.nan
    weights = attention.weights(queries, tokens, valid)
    values = attention.value(tokens.nan_to_num()).unflatten(-1, (3, 4))
    torch.testing.assert_close(torch.einsum("bhqs,bshv->bqhv", weights, values), expected)
    assert weights.shape == (3, 3, 2, 6)
    assert (weights >= 0).all()
    assert (weights.movedim(3, 1)[~valid] == 0).all()
    sums, count = weights.sum(-1), valid.sum(1)[:, None, None]
    if key_softmax == "sequence":
        torch.testing.assert_close(sums, (count > 0).double().expand_as(sums))
    else:
        assert (sums <= count).all()


@pytest.mark.parametrize("key_softmax", ["sequence", "features"])
def test_weights_say_what_a_change_of_one_value_does(key_softmax):
    torch.manual_seed(0)
    attention = EfficientAttention(12, 3, key_softmax, output_projection=False).double()
    tokens, valid = torch.randn(2, 4, 12, dtype=torch.double), torch.tensor([[True] * 4, [True, True, False, True]])
    before, weights = attention(tokens, valid), attention.weights(tokens, tokens, valid)
    change = torch.zeros(4, 12, dtype=torch.double)
    change[1] = 1.0
    attention.value.register_forward_hook(lambda _, __, values: values + change)
    moved = (attention(tokens, valid) - before).unflatten(-1, (3, 4))  # [B, Q, H, d]
    torch.testing.assert_close(moved, weights[..., 1].transpose(1, 2).unsqueeze(-1).expand_as(moved))


def test_weights_of_no_token_have_gradients():
    attention = EfficientAttention(8, 2)
    weights = attention.weights(torch.randn(1, 2, 8), torch.randn(1, 3, 8), torch.zeros(1, 3, dtype=torch.bool))
    weights.sum().backward()
    assert attention.key.weight.grad.isfinite().all()


def test_block_of_the_paper():
    block = AttentionBlock(8, 2, expansion=2).eval()
    tokens, valid = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    first, second = (module for module in block.feed_forward if isinstance(module, nn.Linear))
    hidden = tokens + block.attention(tokens, valid)
    expected = elu(hidden + second(elu(first(hidden))))
    torch.testing.assert_close(block(tokens, valid), expected)
    torch.testing.assert_close(block(tokens, valid, num_queries=2), expected[:, :2])
    assert first.out_features == 16


def test_block_as_published():
    block = AttentionBlock(8, 2, variant="published").eval()
    tokens, valid = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    first, second = (module for module in block.feed_forward if isinstance(module, nn.Linear))
    attended = direct(block.attention, layer_norm(tokens, [8]), valid, layer_norm(tokens, [8]))
    hidden = block.shortcut(tokens) + attended
    torch.testing.assert_close(block(tokens, valid), hidden)  # the feed-forward network starts at zero
    nn.init.normal_(second.weight)
    torch.testing.assert_close(block(tokens, valid), hidden + second(gelu(first(layer_norm(hidden, [8])))))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (EfficientAttention, {"num_heads": 3}, "num_heads must divide width, got 3 heads and width 8"),
        (EfficientAttention, {"num_heads": 0}, "num_heads must divide width, got 0 heads"),
        (EfficientAttention, {"key_softmax": "rows"}, "key_softmax must be 'sequence' or 'features', got 'rows'"),
        (EfficientAttention, {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        (AttentionBlock, {"expansion": 0}, "expansion must be at least 1, got 0"),
        (AttentionBlock, {"variant": "other"}, "variant must be 'paper' or 'published', got 'other'"),
        (AttentionBlock, {"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
    ],
)
def test_bad_arguments_are_named(module, options, message):
    with pytest.raises(ValueError, match=message):
        module(**{"width": 8, **options})
