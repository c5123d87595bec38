import copy
import pickle
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import elu, gelu, layer_norm, normalize

from lightning_ss2a.models import Remixer, RemixerOptions

SMALL = {"width": 8, "num_heads": 2, "head_widths": (9, 7), "max_slots": 6}
VARIANTS = {
    "paper": {},
    "published": {"variant": "published", "input_scaling": False, "mask_padding": False, "head_widths": (8,)},
}


def build(visual_width: int = 5, **options) -> Remixer:
    torch.manual_seed(0)
    remixer = Remixer(6, visual_width, 4, RemixerOptions(**{**SMALL, **options})).eval()
    torch.nn.init.normal_(remixer.log_variance_head[-1].weight)
    return remixer


def scenes(count: int = 3, slots: int = 4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    manifold, visual = (torch.randn(count, slots, w, generator=generator, dtype=dtype) for w in (6, 5))
    valid = torch.arange(slots)[None] < torch.tensor([slots, 1, 2, 3])[:count, None]
    return manifold, visual, valid


def by_hand(remixer: Remixer, manifold: torch.Tensor, visual: torch.Tensor):
    """One scene of valid slots by the paper's description, one layer."""
    parts = [normalize(x) * x.shape[1] ** 0.5 for x in (manifold, visual)]
    tokens = torch.cat([remixer.summary, remixer.input(torch.cat(parts, dim=1))])
    (block,) = remixer.blocks
    attention, heads = block.attention, []
    for head in range(attention.num_heads):
        part = slice(4 * head, 4 * head + 4)
        query = attention.query(tokens)[:, part].softmax(1)
        key = attention.key(tokens)[:, part].softmax(0)
        heads.append(query @ key.T @ attention.value(tokens)[:, part])
    hidden = tokens + attention.output(torch.cat(heads, dim=1))
    first, _, _, second = block.feed_forward
    summary = elu(hidden + second(elu(first(hidden))))[0]
    moments = []
    for layers in (remixer.mean_head, remixer.log_variance_head):
        first, _, _, second, _, _, third = layers
        moments.append(third(elu(second(elu(first(summary))))))
    return moments


def test_equals_the_formula_with_gradients():
    remixer = build().double()
    manifold, visual, valid = scenes(dtype=torch.double)
    gaussian = remixer(manifold, visual, valid)
    expected = [by_hand(remixer, m[v], x[v]) for m, x, v in zip(manifold, visual, valid, strict=True)]
    means, log_variances = (torch.stack(moment) for moment in zip(*expected, strict=True))
    torch.testing.assert_close(gaussian.mean, means)
    torch.testing.assert_close(gaussian.log_variance, log_variances)
    parameters = list(remixer.parameters())
    ours = torch.autograd.grad(gaussian.mean.sum() + gaussian.log_variance.square().sum(), parameters)
    theirs = torch.autograd.grad(means.sum() + log_variances.square().sum(), parameters)
    for gradient, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, reference)
        assert gradient.norm() > 0


def test_published_equals_the_formula():
    remixer = build(**VARIANTS["published"])
    manifold, visual, valid = scenes(1)
    tokens = torch.cat([manifold[0], visual[0]], dim=1)
    tokens = torch.cat([remixer.summary, remixer.input(torch.cat([tokens, torch.zeros(2, 11)]))])  # to 6 slots
    (block,) = remixer.blocks
    normed = layer_norm(tokens, [8])
    split = [layer(normed).view(8, 2, 4) for layer in (block.attention.query, block.attention.key)]
    weights = torch.einsum("qhk,shk->hqs", *(x.softmax(-1) for x in split))
    attended = torch.einsum("hqs,shv->qhv", weights, block.attention.value(normed).view(8, 2, 4)).reshape(8, 8)
    hidden = block.shortcut(tokens) + attended
    gaussian = remixer(manifold, visual, valid)
    for token, head, value in zip(
        hidden[:2], (remixer.mean_head, remixer.log_variance_head), (gaussian.mean, gaussian.log_variance), strict=True
    ):
        first, norm, _, _, last = head
        torch.testing.assert_close(value[0], last(gelu(norm(first(token)))))


def test_paper_sizes():
    with torch.device("meta"):
        remixer = Remixer(768, 768, 512)
    block = 4 * (768 * 768 + 768) + 2 * (768 * 768 + 768)
    head = (768 * 768 + 768) + (768 * 640 + 640) + (640 * 512 + 512)
    assert sum(p.numel() for p in remixer.parameters()) == 1536 * 768 + 768 + 768 + block + 2 * head


@settings(max_examples=30, deadline=None)
@given(data=st.data(), variant=st.sampled_from(["paper", "published"]), num_layers=st.integers(1, 2))
def test_order_padding_and_batch_change_nothing(data, variant, num_layers):
    remixer = build(**VARIANTS[variant], num_layers=num_layers)
    torch.nn.init.normal_(remixer.blocks[0].feed_forward[-1].weight)
    count = data.draw(st.integers(0, 4))
    order = torch.tensor(data.draw(st.permutations(range(count))), dtype=torch.long)
    padding = data.draw(st.integers(0, 2))
    others = data.draw(st.integers(0, 3))
    manifold, visual = torch.randn(1 + others, count + padding, 6), torch.randn(1 + others, count + padding, 5)
    valid = torch.rand(1 + others, count + padding) > 0.5
    valid[0] = torch.arange(count + padding) < count
    alone = remixer(manifold[:1, :count], visual[:1, :count], valid[:1, :count])
    manifold[0, :count], visual[0, :count] = manifold[0, order], visual[0, order]
    for tokens in (manifold, visual):
        tokens[~valid] = torch.nan
    together = remixer(manifold, visual, valid)
    torch.testing.assert_close(together.mean[:1], alone.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.log_variance[:1], alone.log_variance, rtol=1e-5, atol=1e-5)
    assert together.mean.isfinite().all()


def test_a_nan_source_spoils_its_own_scene_only():
    remixer = build()
    manifold, visual, valid = scenes()
    expected = remixer(manifold, visual, valid).mean
    manifold[1, 0, 2] = torch.nan
    mean = remixer(manifold, visual, valid).mean
    assert mean[1].isnan().all()
    torch.testing.assert_close(mean[[0, 2]], expected[[0, 2]])


def test_a_scene_without_sources_is_mixed_from_the_summary_alone():
    remixer = build()
    manifold, visual, valid = scenes()
    valid[1] = False
    gaussian = remixer(manifold, visual, valid)
    torch.testing.assert_close(gaussian.mean[1:2], remixer(manifold[1:2, :0], visual[1:2, :0], valid[1:2, :0]).mean)
    assert gaussian.mean.isfinite().all()


def test_conditions_zero_the_other_part_and_can_be_changed():
    remixer = build()
    manifold, visual, valid = scenes()
    whole = remixer(manifold, visual, valid).mean
    for conditions, inputs in (
        ("manifold", (manifold, torch.zeros_like(visual))),
        ("visual", (torch.zeros_like(manifold), visual)),
    ):
        expected = remixer(*inputs, valid).mean
        remixer.options = replace(remixer.options, conditions=conditions)
        assert torch.equal(remixer(manifold, visual, valid).mean, expected)
        assert torch.equal(build(conditions=conditions)(manifold, visual, valid).mean, expected)
        remixer.options = replace(remixer.options, conditions="manifold+visual")
    assert torch.equal(remixer(manifold, visual, valid).mean, whole)
    with pytest.raises(ValueError, match=r"conditions must be one of manifold\+visual, manifold, visual, found 'x'"):
        replace(remixer.options, conditions="x")


@pytest.mark.parametrize("mode", ["whole", "parts"])
def test_token_dropout_zeroes_tokens_in_training_only(mode):
    remixer = build(token_dropout=0.3, token_dropout_mode=mode, max_slots=2000)
    seen = []
    remixer.input.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    manifold, visual, valid = torch.randn(1, 2000, 6), torch.randn(1, 2000, 5), torch.ones(1, 2000, dtype=torch.bool)
    remixer(manifold, visual, valid)
    remixer.train()
    torch.manual_seed(0)
    remixer(manifold, visual, valid)
    assert (seen[0] != 0).all()
    dropped = torch.stack([(part == 0).all(1) for part in seen[1].split([6, 5], dim=1)])
    assert dropped.double().mean().item() == pytest.approx(0.3, abs=0.03)
    both = dropped.all(0).double().mean().item()
    assert both == pytest.approx(0.3 if mode == "whole" else 0.09, abs=0.03)
    kept = (~dropped).all(0)
    assert torch.equal(seen[1][kept], seen[0][kept])


def test_input_scaling_ignores_norms_and_keeps_zeros():
    manifold, visual, valid = scenes()
    visual[0, 1] = 0
    scaled, raw = build(), build(input_scaling=False)
    torch.testing.assert_close(scaled(manifold, visual, valid).mean, scaled(9 * manifold, 3 * visual, valid).mean)
    by_hand = (normalize(manifold, dim=-1) * 6**0.5, normalize(visual, dim=-1) * 5**0.5)
    torch.testing.assert_close(raw(*by_hand, valid).mean, scaled(manifold, visual, valid).mean)


def test_unit_mean_and_first_variance():
    torch.manual_seed(0)
    remixer = Remixer(6, 5, 4, RemixerOptions(**SMALL, unit_mean=True, initial_log_variance=-3.0))
    gaussian = remixer(*scenes())
    torch.testing.assert_close(gaussian.mean.norm(dim=1), torch.ones(3))
    assert torch.equal(gaussian.log_variance, torch.full((3, 4), -3.0))


def names_of_a_block(number: int) -> list[str]:
    layers = ["attention.query", "attention.key", "attention.value", "shortcut", "norm"]
    layers += ["feed_forward.0", "feed_forward.1", "feed_forward.4"]
    return [f"blocks.{number}.{layer}" for layer in layers]


@pytest.mark.parametrize(
    ("options", "layers", "next_random", "mean"),
    [
        (
            {},
            ["input", *(f"blocks.0.attention.{x}" for x in ("query", "key", "value", "output"))]
            + ["blocks.0.feed_forward.0", "blocks.0.feed_forward.3"]
            + [f"{head}.{i}" for head in ("mean_head", "log_variance_head") for i in (0, 3, 6)],
            0.7555854,
            [[-0.0577148, -0.2769396, 0.1770892, 0.3442070], [-0.0556969, -0.2620056, 0.1785589, 0.3470308]],
        ),
        (
            {**VARIANTS["published"], "num_layers": 2, "expansion": 2},
            ["input", *names_of_a_block(0), *names_of_a_block(1)]
            + [f"{head}.{i}" for head in ("mean_head", "log_variance_head") for i in (0, 1, 4)],
            0.4174297,
            [[0.1986834, -0.0537142, 0.4764602, 0.2844956], [0.1969533, -0.0369533, 0.4451891, 0.2725382]],
        ),
    ],
    ids=["paper", "published"],
)
def test_names_random_stream_and_outputs_stay_what_they_were(options, layers, next_random, mean):
    """Checkpoints load and seeded runs repeat only as long as these stay, whatever the classes above share."""
    torch.manual_seed(0)
    remixer = Remixer(6, 5, 4, RemixerOptions(**{**SMALL, **options}))
    assert torch.rand(()).item() == pytest.approx(next_random, abs=1e-6)
    assert list(remixer.state_dict()) == ["summary", *(f"{x}.{y}" for x in layers for y in ("weight", "bias"))]
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(2, 3, width, generator=generator) for width in (6, 5)]
    valid = torch.tensor([[True, True, False], [True, True, True]])
    torch.testing.assert_close(remixer.eval()(*inputs, valid).mean, torch.tensor(mean), rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("variant", ["paper", "published"])
def test_attention_weights_are_the_summarys_in_the_last_layer(variant, num_layers):
    remixer = build(**VARIANTS[variant], num_layers=num_layers)
    manifold, visual, valid = scenes()
    manifold[~valid] = torch.nan
    tokens, attended = remixer.encode(*remixer.pad(manifold, visual, valid))
    tokens, attended = remixer.with_summary(tokens, attended)
    for block in remixer.blocks[:-1]:
        tokens = block(tokens, attended)
    block, first = remixer.blocks[-1], len(remixer.summary)
    normed = block.norm(tokens)
    every = block.attention.weights(normed[:, :1], normed, attended).mean(1)[:, 0]  # mean over heads, [B, 1 or 2 + S]
    weights = remixer.attention_weights(manifold, visual, valid)
    torch.testing.assert_close(weights, every[:, first : first + 4] * valid)
    assert (weights[valid] > 0).all()
    assert (weights[~valid] == 0).all()
    if variant == "paper":
        torch.testing.assert_close(weights.sum(1), 1 - every[:, 0])


def test_attention_weights_say_what_a_source_does_to_the_context():
    """Move one source's values by 1 in every coordinate: the context of [cls] moves by that source's weight."""
    remixer = build()
    inputs = scenes()
    weights = remixer.attention_weights(*inputs)
    contexts, change = [], torch.zeros(5, 8)
    attention = remixer.blocks[0].attention
    attention.output.register_forward_pre_hook(lambda _, inputs: contexts.append(inputs[0]))
    attention.value.register_forward_hook(lambda _, __, values: values + change)
    remixer(*inputs)
    change[1] = 1.0  # slot 0; token 0 is [cls]
    remixer(*inputs)
    moved = contexts[1] - contexts[0]  # [B, 1, D]
    torch.testing.assert_close(moved.mean((1, 2)), weights[:, 0])


def test_attention_weights_of_a_scene_without_sources_are_zero():
    manifold, visual, valid = scenes()
    weights = build().attention_weights(manifold, visual, torch.zeros_like(valid))
    assert torch.equal(weights, torch.zeros(3, 4))


def test_learns_to_mix():
    torch.manual_seed(0)
    options = RemixerOptions(width=32, num_heads=4, head_widths=(32,), dropout=0.0, token_dropout=0.0)
    remixer = Remixer(16, 8, 16, options)
    optimizer = torch.optim.AdamW(remixer.parameters(), lr=3e-3)
    visual = torch.zeros(64, 3, 8)
    for _ in range(150):
        manifold, valid = torch.randn(64, 3, 16), torch.rand(64, 3) < 0.7
        valid[:, 0] = True
        target = (normalize(manifold, dim=-1) * valid.unsqueeze(-1)).sum(1)
        similarity = torch.cosine_similarity(remixer(manifold, visual, valid).sample(), target)
        optimizer.zero_grad()
        (1 - similarity).mean().backward()
        optimizer.step()
    assert similarity.mean() > 0.8


def in_slots(means: torch.Tensor) -> torch.Tensor:
    """Source audio [B, 4, A] with those means [B, A]."""
    parts = torch.tensor([1.5, -0.5, 0, 0], dtype=means.dtype)
    return means[:, None] * parts[:, None]


@pytest.mark.parametrize("residual", ["mean", "weighted_mean"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_residual_starts_at_the_mean_of_the_sources_to_the_bit(variant: str, residual: str):
    remixer = build(**VARIANTS[variant], residual=residual)
    means = torch.tensor([[3.0, 0, 4, 0], [0, -1, 0, 0], [0.5, 0.5, 0.5, -0.5]])
    found = remixer(*scenes(), in_slots(means)).mean
    assert torch.equal(found, normalize(means, dim=1) * 2)  # the root of the width
    assert torch.equal(found, torch.tensor([[1.2, 0, 1.6, 0], [0, -2, 0, 0], [1, 1, 1, -1]]))


@pytest.mark.parametrize("options", [{}, {"unit_mean": True}, {"variant": "published", "head_widths": (8,)}])
def test_a_residual_is_added_to_what_the_paper_s_remixer_says(options: dict):
    plain, remixer = build(**options).double(), build(**options, residual="mean").double()
    remixer.load_state_dict(plain.state_dict())  # no weight is added
    plain.unit_mean = False
    inputs, means = scenes(dtype=torch.double), torch.randn(3, 4, dtype=torch.double)
    expected = plain(*inputs).mean + normalize(means, dim=1) * 2
    if "unit_mean" in options:
        expected = normalize(expected, dim=1)
    torch.testing.assert_close(remixer(*inputs, in_slots(means)).mean, expected)
    torch.testing.assert_close(remixer(*inputs, in_slots(means)).log_variance, plain(*inputs).log_variance)


def test_a_residual_s_gradients_are_those_of_the_sum():
    remixer = build(residual="mean").double()
    inputs, means = scenes(dtype=torch.double), torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    target = torch.randn(3, 4, dtype=torch.double)
    (torch.nn.functional.cosine_similarity(remixer(*inputs, in_slots(means)).mean, target).sum()).backward()
    moved = {name for name, p in remixer.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"mean_head.6.weight", "mean_head.6.bias"}  # zero weights let nothing through to the others yet
    unit, goal = normalize(means.detach(), dim=1), normalize(target, dim=1)
    by_hand = (goal - (unit * goal).sum(1, keepdim=True) * unit) / 2  # of cos(2 unit + bias, target) at bias 0
    torch.testing.assert_close(remixer.mean_head[-1].bias.grad, by_hand.sum(0))


@pytest.mark.parametrize("residual", ["mean", "weighted_mean"])
def test_a_residual_s_scenes_do_not_depend_on_batch_and_padding(residual: str):
    remixer = build(residual=residual).double()
    for layer in (remixer.mean_head[-1], *([remixer.loudness] if residual == "weighted_mean" else [])):
        torch.nn.init.normal_(layer.weight)
    manifold, visual, valid = scenes(dtype=torch.double)
    heard = torch.randn(3, 4, 4, dtype=torch.double) * valid[..., None]
    together = remixer(manifold, visual, valid, heard).mean
    for row, there in enumerate(valid):
        alone = remixer(*(x[row][there][None] for x in (manifold, visual, valid, heard))).mean
        torch.testing.assert_close(together[row : row + 1], alone)


def test_weights_of_a_weighted_mean_are_the_softmax_of_scores_of_the_tokens():
    remixer, (manifold, visual, valid) = build(residual="weighted_mean").double(), scenes(dtype=torch.double)
    for p in remixer.loudness.parameters():
        torch.nn.init.normal_(p)
    heard = torch.randn(3, 4, 4, dtype=torch.double) * valid[..., None]
    heard[0, 0] = 0  # a slot that is no source, whatever its score
    found = remixer(manifold, visual, valid, heard).mean
    for row in range(3):
        e, v = (normalize(x[row], dim=1) * x.shape[-1] ** 0.5 for x in (manifold, visual))
        tokens = remixer.input(torch.cat([e, v], dim=1))
        tokens = torch.where(tokens > 0, tokens, tokens.exp() - 1)
        loud = (tokens @ remixer.loudness.weight[0] + remixer.loudness.bias).exp()
        mean = sum(float(loud[slot]) * heard[row, slot] for slot in range(4) if heard[row, slot].any())
        torch.testing.assert_close(found[row], mean / mean.norm() * 2)


def test_a_weighted_mean_learns_how_loud_sources_look():
    """One number of v is the logarithm of a source's gain; e alone does not tell it."""
    torch.manual_seed(0)
    options = RemixerOptions(width=32, num_heads=2, head_widths=(32,), dropout=0.0, residual="weighted_mean")
    remixer = Remixer(8, 8, 8, options)
    optimizer = torch.optim.AdamW(remixer.parameters(), 1e-2)
    for step in range(200):
        heard, log_gain = normalize(torch.randn(64, 3, 8), dim=-1), torch.randn(64, 3)
        visual = normalize(torch.cat([log_gain[..., None], torch.randn(64, 3, 7)], -1), dim=-1)
        target = (heard * log_gain.exp()[..., None]).sum(1)
        mixed = remixer(torch.randn(64, 3, 8), visual, torch.ones(64, 3, dtype=torch.bool), heard / 3).mean
        cosine = torch.cosine_similarity(mixed, target).mean()
        if step == 0:
            start = cosine.item()
        optimizer.zero_grad()
        (1 - cosine).backward()
        optimizer.step()
    assert start == pytest.approx(torch.cosine_similarity(heard.sum(1), target).mean().item(), abs=0.03)
    assert cosine > start + 0.05


def test_copies_state_dict_and_compilation():
    remixer, inputs = build(), scenes()
    expected = remixer(*inputs).mean
    other = build()
    other.load_state_dict(remixer.state_dict())
    compiled = torch.compile(remixer, backend="aot_eager", fullgraph=True)
    for twin in (copy.deepcopy(remixer), pickle.loads(pickle.dumps(remixer)), other, compiled):
        torch.testing.assert_close(twin(*inputs).mean, expected)


def test_bfloat16_autocast_is_close():
    remixer, inputs = build(), scenes()
    with torch.autocast("cpu", torch.bfloat16):
        mean = remixer(*inputs).mean
    torch.testing.assert_close(mean.float(), remixer(*inputs).mean, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, r"^model\.remixer\.num_layers must be at least 1, found 0$"),
        ({"visual_width": 0}, "visual_width must be at least 1, got 0"),
        ({"head_widths": (4, 0)}, "head_widths must be at least 1, found 0"),
        ({"token_dropout": 1.0}, r"token_dropout must be in \[0, 1\), found 1.0"),
        ({"token_dropout_mode": "x"}, "token_dropout_mode must be one of whole, parts, found 'x'"),
        ({"num_heads": 3}, "num_heads must divide width 8, found 3"),
        ({"variant": "x"}, "variant must be one of paper, published, found 'x'"),
        ({"residual": "x"}, "residual must be one of none, mean, weighted_mean, found 'x'"),
        *(
            ({"residual": name, "conditions": "visual"}, f"residual={name} is made of e, .*conditions=visual leaves")
            for name in ("mean", "weighted_mean")
        ),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bad_inputs_are_named():
    remixer, (manifold, visual, valid) = build(), scenes()
    with pytest.raises(ValueError, match="source_audio is of no use to a Remixer without a residual"):
        remixer(manifold, visual, valid, torch.ones(3, 4, 4))
    shapes = [(3,), (3, 4), (1, 4, 4), (3, 5, 4), (3, 4, 3)]
    for wrong in (None, *(torch.ones(shape) for shape in shapes)):
        found = None if wrong is None else tuple(wrong.shape)
        message = f"residual 'mean' needs source_audio of shape (3, 4, 4), got {found}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            build(residual="mean")(manifold, visual, valid, wrong)
    with pytest.raises(ValueError, match=r"visual_tokens must have shape \(3, 4, 5\), got \(3, 4, 4\)"):
        remixer(manifold, visual[..., :4], valid)
    with pytest.raises(ValueError, match=r"valid must be a bool mask \[scenes, slots\], got torch.float32 \(3, 4\)"):
        remixer(manifold, visual, valid.float())
    with pytest.raises(ValueError, match=r"65 slots, at most 64 \(max_slots\): choose which sources to mix"):
        build(max_slots=64)(torch.randn(1, 65, 6), torch.randn(1, 65, 5), torch.ones(1, 65, dtype=torch.bool))
