"""Released weights as networks of ours, against what the released code computes (published_reference)."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.models import (
    CycleMixOptions,
    Manifold,
    Remixer,
    TemporalAggregator,
    cycle_mix,
)
from lightning_ss2a.models.layers.keyed_noise import keyed_generator
from lightning_ss2a.models.published import (
    Settings,
    read_aggregator_weights,
    read_manifold_weights,
    read_remixer_weights,
)
from lightning_ss2a.models.source_slots import audio_slots, fill_slots, join_slots, visual_slots, zero_projection
from tests.models import published_reference as reference
from tests.models.published_reference import Sizes, make_aggregator, make_weights, part

SIZES = [
    Sizes(),
    Sizes(11, 6, 7, (5,), (7, 9), width=10, heads=2, layers=2, expansion=3),
    Sizes(3, 16, 13, (9, 8, 7, 6), (6, 6, 7, 8, 9, 11, 13, 5), width=8, heads=8, dropout=0.0),
]
PUBLISHED = CycleMixOptions(iterations=4, samples=1, score="std", feedback="replace", noise_scale=0.0)


def flat(weights: dict) -> dict[str, Tensor]:
    """Tensors of ssv2a.pth, each under its part."""
    return {f"{name}.{key}": x for name in weights if name != "timestamp" for key, x in weights[name].items()}


def imported(weights: dict, sizes: Sizes) -> tuple[Manifold, Remixer]:
    settings = Settings(sizes.config(), "ssv2a.json")
    found = read_manifold_weights(flat(weights), settings, "ssv2a.pth")
    manifold = Manifold(found.visual_width, found.audio_width, found.options)
    manifold.load_state_dict(found.weights)
    mixer = read_remixer_weights(flat(weights), settings, found, "ssv2a.pth")
    remixer = Remixer(found.options.width, found.visual_width, found.audio_width, mixer.options)
    remixer.load_state_dict(mixer.weights)
    return manifold.eval(), remixer.eval()


def scenes(sizes: Sizes, counts: tuple[int, ...] = (1, 3, 4), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit embeddings of the sources of scenes, and which there are; others hold NaN."""
    generator = torch.Generator().manual_seed(seed)
    visual = normalize(torch.randn(len(counts), max(counts), sizes.clip, generator=generator), dim=-1)
    valid = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return visual.masked_fill(~valid[..., None], torch.nan), valid


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
@torch.no_grad()
def test_projectors_and_reconstructor_are_the_released_ones(sizes: Sizes):
    weights = make_weights(sizes)
    manifold, _ = imported(weights, sizes)
    state = weights["manifold_state"]
    for network, theirs, width in (
        (manifold.project_visual, part("clip_encoder", state), sizes.clip),
        (manifold.project_audio, part("clap_encoder", state), sizes.clap),
        (manifold.reconstruct_audio, weights["generator_state"], sizes.manifold),
    ):
        inputs = normalize(torch.randn(5, width), dim=-1)
        mean, log_variance = reference.variational(theirs, inputs)
        close(network(inputs).mean, mean)
        close(network(inputs).log_variance, log_variance)
    assert manifold.temperature.item() == pytest.approx(torch.tensor(3.1).exp().item())


@pytest.mark.parametrize("sizes", SIZES)
@torch.no_grad()
def test_the_remixer_is_the_released_one_with_and_without_padding(sizes: Sizes):
    weights = make_weights(sizes, seed=1)
    _, remixer = imported(weights, sizes)
    state = weights["remixer_state"]
    e, v = torch.randn(3, 4, sizes.manifold), normalize(torch.randn(3, 4, sizes.clip), dim=-1)
    there = torch.ones(3, 4, dtype=torch.bool)
    padding = torch.zeros(3, sizes.slots - 4, 1)
    padded = [torch.cat([x, padding.expand(-1, -1, x.shape[-1])], dim=1) for x in (e, v)]
    for slots, tokens in ((sizes.slots, padded), (4, [e, v])):
        remixer.options = replace(remixer.options, max_slots=slots)
        found = remixer(e, v, there)
        mean, log_variance = reference.remix(state, *tokens, sizes.heads)
        close(found.mean, mean)
        close(found.log_variance, log_variance)


@pytest.mark.parametrize(("width", "frames"), [(8, 64), (24, 64), (16, 5)])
@torch.no_grad()
def test_the_aggregator_is_the_released_one(width: int, frames: int):
    state = make_aggregator(width, expansion=3 if width == 16 else 2)
    found = read_aggregator_weights(state, "agg.pth")
    aggregator = TemporalAggregator(found.audio_width, found.options).eval()
    aggregator.load_state_dict(found.weights)
    videos = normalize(torch.randn(3, frames, width), dim=-1)
    gaussian = aggregator(videos, torch.linspace(0, 9.9, frames).expand(3, frames))
    mean, log_variance = reference.aggregate(state, videos)
    close(gaussian.mean, mean)
    close(gaussian.log_variance, log_variance)


def seen_slots(manifold: Manifold, sizes: Sizes, visual: Tensor, valid: Tensor):
    """The whole picture, sources, and empty slots that hold υ(0)."""
    whole = visual_slots(visual[:, :1], valid[:, :1], manifold.project_visual, weight=0.0)
    slots = join_slots([whole, visual_slots(visual[:, 1:], valid[:, 1:], manifold.project_visual)])
    return fill_slots(slots, sizes.slots, manifold.project_visual)


def padded_clips(sizes: Sizes, visual: Tensor) -> Tensor:
    clips = torch.zeros(len(visual), sizes.slots, sizes.clip)
    clips[:, : visual.shape[1]] = visual.nan_to_num(0)
    return clips


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("its", [0, 1, 3])
def test_cycle_mix_of_pictures_is_the_released_one_without_noise(sizes: Sizes, its: int):
    weights = make_weights(sizes, seed=2)
    manifold, remixer = imported(weights, sizes)
    visual, valid = scenes(sizes)
    slots = seen_slots(manifold, sizes, visual, valid)
    options = replace(PUBLISHED, iterations=its + 1)
    found = cycle_mix(remixer, manifold, *slots.tokens(), "abc", options=options, slot_weights=slots.weight)
    expected = reference.mix_in_cycles(weights, padded_clips(sizes, visual), sizes.heads, its)
    close(found.embedding, expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cycle_mix_chooses_among_draws_as_the_released_one(seed: int):
    sizes, its, samples = SIZES[0], 3, 5
    weights = make_weights(sizes, seed)
    manifold, remixer = imported(weights, sizes)
    visual, valid = scenes(sizes, seed=seed)
    slots = seen_slots(manifold, sizes, visual, valid)
    generators = [keyed_generator(seed, key, torch.device("cpu")) for key in "abc"]
    noise = [
        torch.stack([torch.randn(samples, sizes.clap, generator=generator) for generator in generators])
        for _ in range(its + 1)
    ]
    options = replace(PUBLISHED, iterations=its + 1, samples=samples, noise_scale=1.0)
    found = cycle_mix(remixer, manifold, *slots.tokens(), "abc", options=options, seed=seed, slot_weights=slots.weight)
    expected = reference.mix_in_cycles(weights, padded_clips(sizes, visual), sizes.heads, its, noise)
    close(found.embedding, expected)
    assert (found.history[:, -1] < found.history[:, 0]).any(), "no later round was better: the test shows too little"


@pytest.mark.parametrize("sizes", SIZES)
def test_cycle_mix_of_composed_sources_is_the_released_one_without_noise(sizes: Sizes):
    weights = make_weights(sizes, seed=3)
    manifold, remixer = imported(weights, sizes)
    visual, valid = scenes(sizes, (2, 1))
    audio = normalize(torch.randn(2, 2, sizes.clap), dim=-1)
    nothing = zero_projection(sizes.manifold)
    first = visual_slots(torch.zeros(2, 1, sizes.clip), valid[:, :1], nothing, weight=0.0)
    heard = audio_slots(audio, torch.ones(2, 2, dtype=torch.bool), manifold)
    slots = fill_slots(
        join_slots([first, visual_slots(visual, valid, manifold.project_visual), heard]), sizes.slots, nothing
    )
    found = cycle_mix(remixer, manifold, *slots.tokens(), "ab", options=PUBLISHED, slot_weights=slots.weight)
    given = torch.zeros(2, sizes.slots, sizes.manifold)
    given[:, 3:5] = manifold.project_audio(audio).mean.detach()
    clips = torch.zeros(2, sizes.slots, sizes.clip)
    clips[:, 1:3] = visual.nan_to_num(0)
    expected = reference.mix_in_cycles(weights, clips, sizes.heads, PUBLISHED.iterations - 1, given=given)
    close(found.embedding, expected)


# -------------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("manifold_state.clap_encoder.out_mu.bias", None, "lacks manifold_state.clap_encoder.out_mu.bias$"),
        ("manifold_state.clip_encoder.model.0.weight", None, "lacks manifold_state.clip_encoder.model.0.weight$"),
        ("manifold_state.router.weight", torch.ones(2), "has manifold_state.router.weight too much$"),
        (
            "generator_state.out_mu.weight",
            torch.ones(3, 7),
            r"has generator_state.out_mu.weight of shape \[3, 7\], needs \[8, 7\]$",
        ),
        (
            "remixer_state.styler.pred_token",
            torch.ones(1, 12),
            r"styler.pred_token of shape \[1, 12\], needs \[2, 12\]$",
        ),
        ("remixer_state.styler.in_proj.weight", torch.ones(12, 24), r"of shape \[12, 24\], needs \[12, 16\]$"),
        ("remixer_state.styler.style_encoder.encoder.0.ffn.linear1.weight", torch.ones(3), r"\[3\], needs a matrix$"),
    ],
)
def test_tensors_that_do_not_fit_are_named(name: str, tensor: Tensor | None, message: str):
    sizes = SIZES[0]
    state, settings = flat(make_weights(sizes)), Settings(sizes.config(), "ssv2a.json")
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    with pytest.raises(InputError, match=f"^ssv2a.pth: .*{message}") as raised:
        read_remixer_weights(state, settings, read_manifold_weights(state, settings, "ssv2a.pth"), "ssv2a.pth")
    assert "\n" not in str(raised.value)


def test_of_many_tensors_that_do_not_fit_some_are_named_and_the_rest_counted():
    sizes = SIZES[0]
    state = {name: x for name, x in flat(make_weights(sizes)).items() if ".mod.1." not in name and "proj" not in name}
    with pytest.raises(InputError, match=r"lacks .*; lacks .*; and 14 more$"):
        read_manifold_weights(state, Settings(sizes.config(), "ssv2a.json"), "ssv2a.pth")


@pytest.mark.parametrize(
    ("part_name", "option", "value", "message"),
    [
        ("manifold", "arch", "moe", "manifold.arch is 'moe', and can be imported as 'mlp'"),
        ("generator", "disabled", True, "generator.disabled is True, and can be imported as False"),
        ("generator", "dropout", 0.1, "generator.dropout is 0.1, and must be that of the manifold, 0.2"),
        ("manifold", "resnet", False, "manifold.resnet is False, and can be imported as True"),
        ("manifold", "layers", [5, 6], r"manifold.layers is \[5, 6\], but the tensors in ssv2a.pth have \[5, 6, 7, "),
        ("remixer", "guidance", "generator", "remixer.guidance is 'generator', and can be imported as 'manifold'"),
        ("remixer", "slot", None, "remixer.slot must be a number, found None"),
        ("remixer", "slot", math.inf, "remixer.slot must be a number, found inf"),
        ("remixer", "slot", 6.5, "remixer.slot must be a whole number, found 6.5"),
    ],
)
def test_another_configuration_is_named(part_name: str, option: str, value, message: str):
    sizes = SIZES[0]
    config = sizes.config()
    config[part_name] = config[part_name] | {option: value}
    state, settings = flat(make_weights(sizes)), Settings(config, "ssv2a.json")
    with pytest.raises(InputError, match=f"^ssv2a.json: {message}"):
        read_remixer_weights(state, settings, read_manifold_weights(state, settings, "ssv2a.pth"), "ssv2a.pth")


def test_another_positional_encoding_is_refused():
    state = make_aggregator(8)
    state["pe.pe"] = state["pe.pe"].flip(0)
    with pytest.raises(InputError, match=r"^agg.pth: pe.pe is not the encoding of positions"):
        read_aggregator_weights(state, "agg.pth")
