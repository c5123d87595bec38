import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity, normalize

from lightning_ss2a.models import (
    CycleMixOptions,
    DiagonalGaussian,
    Manifold,
    ManifoldOptions,
    Remixer,
    RemixerOptions,
    cycle_mix,
)
from lightning_ss2a.models.layers.keyed_noise import keyed_generator

MANIFOLD, VISUAL, AUDIO = 6, 5, 4
SHORT = CycleMixOptions(iterations=6, samples=5)
ONCE = CycleMixOptions(iterations=1, samples=1)
PUBLISHED = CycleMixOptions(score="std", feedback="replace", var_samples=64, feedback_samples=64)


def networks(**options) -> tuple[Remixer, Manifold]:
    """Small networks whose scenes differ and whose feedback matters."""
    torch.manual_seed(0)
    sizes = {"width": 8, "num_heads": 2, "head_widths": (9,), "max_slots": 6}
    remixer = Remixer(MANIFOLD, VISUAL, AUDIO, RemixerOptions(**{**sizes, **options}))
    manifold = Manifold(VISUAL, AUDIO, ManifoldOptions(MANIFOLD, (8, 8), (8, 8)))
    with torch.no_grad():
        remixer.mean_head[-1].weight.mul_(5)
        remixer.log_variance_head[-1].weight.normal_()
    return remixer.double().eval(), manifold.double().eval()


def scenes():
    """Three ragged scenes of 4, 1 and 2 sources."""
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randn(3, 4, w, generator=generator, dtype=torch.double) for w in (MANIFOLD, VISUAL)]
    return *tokens, torch.arange(4) < torch.tensor([[4], [1], [2]])


def algorithm_1(remixer, manifold, sources, visual, generator, options):
    """One scene, line by line: every draw from a forward pass of its own, every cosine on its own."""
    published = options.feedback == "replace"
    e, v = list(sources), list(visual)
    extra_e, extra_v = [], []
    best, best_score, history = None, None, []
    for _ in range(options.iterations):
        sources_audio = [manifold.reconstruct_audio(x).mean for x in sources]
        scored = []
        for noise in torch.randn(options.samples, AUDIO, generator=generator, dtype=torch.double):
            e_all, v_all = torch.stack(e + extra_e)[None], torch.stack(v + extra_v)[None]
            gaussian = remixer.mix(*remixer.encode(*remixer.pad(e_all, v_all, torch.ones(1, len(e_all[0])).bool())))
            std = gaussian.std * options.noise_scale / options.var_samples**0.5
            draw = (gaussian.mean + noise * std)[0]
            cosines = [cosine_similarity(draw, a, dim=0) for a in sources_audio]
            if published:
                cosines[0] = torch.zeros((), dtype=torch.double)
            cosines = torch.stack(cosines)
            merit = {"mean": cosines.mean(), "min": cosines.min(), "std": -cosines.std(correction=0)}[options.score]
            scored.append((merit, normalize(draw, dim=0)))
        merit, draw = max(scored, key=lambda pair: pair[0])
        if best_score is None or merit > best_score:
            best, best_score = draw, merit
            projected = manifold.project_audio(draw)
            token = projected.mean
            if draws := options.feedback_samples:
                token = (
                    token + torch.randn(MANIFOLD, generator=generator, dtype=torch.double) * projected.std / draws**0.5
                )
            if published:
                e[0] = token
            else:
                extra_e, extra_v = [token], [torch.zeros(VISUAL, dtype=torch.double)]
        history.append(-best_score if options.score == "std" else best_score)
    return best, torch.stack(history)


@pytest.mark.parametrize(
    "options",
    [
        CycleMixOptions(),
        CycleMixOptions(score="min", var_samples=4, noise_scale=2.0),
        CycleMixOptions(feedback_samples=3),
        PUBLISHED,
    ],
    ids=["default", "score", "feedback_samples", "published"],
)
@pytest.mark.parametrize(
    "network",
    [{}, {"num_layers": 2}, {"variant": "published", "mask_padding": False}],
    ids=["default", "two layers", "published network"],
)
def test_equals_algorithm_1(options: CycleMixOptions, network: dict):
    options = replace(options, iterations=6, samples=5)
    remixer, manifold = networks(**network)
    *tokens, valid = scenes()
    if options.feedback == "replace":
        valid = torch.cat([valid[:1], valid[2:], valid[:1]])  # slot 0 is no source
    keys = ["first", "second", "third"]
    result = cycle_mix(remixer, manifold, *tokens, valid, keys, seed=7, options=options)
    for row, (mask, key) in enumerate(zip(valid, keys, strict=True)):
        generator = keyed_generator(7, key, torch.device("cpu"))
        inputs = (part[row][mask] for part in tokens)
        embedding, history = algorithm_1(remixer, manifold, *inputs, generator, options)
        torch.testing.assert_close(result.embedding[row], embedding)
        torch.testing.assert_close(result.history[row], history)
        torch.testing.assert_close(result.score[row], history[-1])


@settings(max_examples=20, deadline=None)
@given(data=st.data(), feedback_samples=st.sampled_from([0, 2]))
def test_batch_padding_and_order_change_nothing(data, feedback_samples):
    remixer, manifold = networks()
    *tokens, valid = scenes()
    options = replace(SHORT, feedback_samples=feedback_samples)
    expected = cycle_mix(remixer, manifold, *(x[:1] for x in (*tokens, valid)), ["a"], options=options)
    rows = torch.tensor(data.draw(st.permutations(range(3)))[: data.draw(st.integers(1, 3))])
    rows = torch.cat([torch.tensor([0]), rows[rows != 0]])
    order = torch.tensor(data.draw(st.permutations(range(4))))
    padding = data.draw(st.integers(0, 2))
    batch = [torch.nn.functional.pad(x[rows][:, order], (0, 0, 0, padding), value=torch.nan) for x in tokens]
    mask = torch.nn.functional.pad(valid[rows][:, order], (0, padding))
    keys = ["abc"[row] for row in rows]
    result = cycle_mix(remixer, manifold, *batch, mask, keys, options=options)
    torch.testing.assert_close(result.embedding[:1], expected.embedding, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result.history[:1], expected.history, rtol=1e-5, atol=1e-5)


def test_history_rises_and_the_shorter_run_is_its_beginning():
    remixer, manifold = networks()
    inputs = *scenes(), range(3)
    options = CycleMixOptions(iterations=20, samples=2)
    result = cycle_mix(remixer, manifold, *inputs, options=options)
    assert (result.history.diff(dim=1) >= 0).all()
    assert (result.history[:, -1] > result.history[:, 0]).all()
    assert torch.equal(result.score, result.history[:, -1])
    short = cycle_mix(remixer, manifold, *inputs, options=replace(options, iterations=7))
    assert torch.equal(short.history, result.history[:, :7])
    spread = cycle_mix(remixer, manifold, *inputs, options=replace(options, score="std")).history
    assert (spread.diff(dim=1) <= 0).all()


def test_result_is_a_unit_vector_of_the_stated_score():
    remixer, manifold = networks()
    e, v, valid = scenes()
    result = cycle_mix(remixer, manifold, e, v, valid, range(3), options=SHORT)
    torch.testing.assert_close(result.embedding.norm(dim=1), torch.ones(3, dtype=torch.double))
    cosines = cosine_similarity(result.embedding[:, None], manifold.reconstruct_audio(e).mean, dim=-1)
    torch.testing.assert_close(result.score, (cosines * valid).sum(1) / valid.sum(1))
    assert not result.embedding.requires_grad


def test_seed_and_key_give_the_noise():
    remixer, manifold = networks()
    inputs = scenes()
    same = [part[:1].expand(3, *part.shape[1:]) for part in inputs]
    result = cycle_mix(remixer, manifold, *same, ["a", b"a", "b"], options=SHORT).embedding
    assert torch.equal(result[0], result[1])
    assert not torch.equal(result[0], result[2])
    assert torch.equal(result, cycle_mix(remixer, manifold, *same, ["a", "a", "b"], options=SHORT).embedding)
    other = cycle_mix(remixer, manifold, *same, ["a", "a", "b"], seed=1, options=SHORT).embedding
    assert not torch.equal(result, other)


def test_the_global_random_state_is_left_alone():
    remixer, manifold = networks()
    state = torch.get_rng_state()
    cycle_mix(remixer, manifold, *scenes(), range(3), options=SHORT)
    assert torch.equal(torch.get_rng_state(), state)


def test_averaged_draws_have_the_distribution_of_their_mean():
    remixer, manifold = networks()
    inputs = [part[:1].expand(4000, *part.shape[1:]) for part in scenes()]
    ours = cycle_mix(remixer, manifold, *inputs, range(4000), options=replace(ONCE, var_samples=9)).embedding
    gaussian = remixer(*inputs)
    theirs = normalize(torch.stack([gaussian.sample() for _ in range(9)]).mean(0), dim=1)
    error = ((ours.var(0) + theirs.var(0)) / 4000).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * error).all()
    torch.testing.assert_close(ours.var(0), theirs.var(0), rtol=0.15, atol=1e-4)


def test_without_noise_the_first_best_is_the_mean():
    remixer, manifold = networks()
    inputs = scenes()
    options = CycleMixOptions(noise_scale=0.0, iterations=1, samples=2)
    result = cycle_mix(remixer, manifold, *inputs, range(3), options=options)
    torch.testing.assert_close(result.embedding, normalize(remixer(*inputs).mean, dim=1))


def test_slot_weights_say_what_counts():
    remixer, manifold = networks()
    e, v, valid = scenes()
    weights = torch.tensor([[3.0, 1, 0, 0], [2, 9, 9, 9], [0, 1, 9, 9]])  # where invalid, it does not count
    result = cycle_mix(remixer, manifold, e, v, valid, range(3), slot_weights=weights, options=SHORT)
    cosines = cosine_similarity(result.embedding[:, None], manifold.reconstruct_audio(e).mean, dim=-1)
    expected = torch.stack([(3 * cosines[0, 0] + cosines[0, 1]) / 4, cosines[1, 0], cosines[2, 1]])
    torch.testing.assert_close(result.score, expected)


OPTIMUM = CycleMixOptions(iterations=1, proposal="optimum")
WEIGHTS = torch.tensor([[3.0, 1, 0, 0.5], [2, 9, 9, 9], [1, 1, 9, 9]])


def best_directions(manifold: Manifold, e: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    directions = []
    for row, weights, there in zip(e, WEIGHTS.double(), valid, strict=True):
        audio = [
            w * normalize(manifold.reconstruct_audio(x).mean, dim=0) for x, w in zip(row, weights * there, strict=True)
        ]
        directions.append(normalize(torch.stack(audio).sum(0), dim=0))
    return torch.stack(directions)


def test_the_optimum_is_the_best_of_all_directions():
    remixer, manifold = networks()
    e, v, valid = scenes()
    result = cycle_mix(remixer, manifold, e, v, valid, range(3), slot_weights=WEIGHTS, options=OPTIMUM)
    torch.testing.assert_close(result.embedding, best_directions(manifold, e, valid))
    audio = normalize(manifold.reconstruct_audio(e).mean, dim=-1)
    weights = (WEIGHTS * valid).double()
    others = normalize(torch.randn(3000, AUDIO, dtype=torch.double), dim=1)
    scores = torch.einsum("na,bsa,bs->bn", others, audio, weights / weights.sum(1, keepdim=True))
    assert (scores < result.score[:, None]).all()
    assert (scores.amax(1) > result.score - 0.05).all()  # in 4 dimensions some come near it
    length = ((audio * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)).norm(dim=1)
    torch.testing.assert_close(result.score, length)  # Cauchy-Schwarz: the norm of the mean of the directions


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.5, 2.0])
def test_the_trust_region_ends_the_way_to_the_optimum(radius: float):
    remixer, manifold = networks()
    e, v, valid = scenes()
    options = replace(OPTIMUM, trust_radius=radius, noise_scale=0.5)
    found = cycle_mix(remixer, manifold, e, v, valid, range(3), slot_weights=WEIGHTS, options=options).embedding
    gaussian = remixer(e, v, valid)
    for row, best in enumerate(best_directions(manifold, e, valid)):
        mean, std = gaussian.mean[row], gaussian.std[row] * 0.5
        end = best * mean.norm()
        distance = (((end - mean) / std) ** 2).mean().sqrt()
        expected = mean + min(1, radius / distance.item()) * (end - mean)
        torch.testing.assert_close(found[row], normalize(expected, dim=0))


def test_a_wider_trust_region_never_scores_lower():
    remixer, manifold = networks()
    inputs = *scenes(), range(3)
    scores = torch.stack(
        [
            cycle_mix(remixer, manifold, *inputs, options=replace(OPTIMUM, trust_radius=r)).score
            for r in (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, None)
        ]
    )
    assert (scores.diff(dim=0) >= -1e-12).all()
    assert (scores[-1] > scores[0]).all()
    mean = replace(ONCE, noise_scale=0.0)
    torch.testing.assert_close(scores[0], cycle_mix(remixer, manifold, *inputs, options=mean).score)


def test_sources_that_cancel_each_other_out_leave_the_mean():
    remixer, manifold = networks()
    e, v, valid = scenes()
    found = cycle_mix(remixer, manifold, e, v, valid, range(3), options=OPTIMUM)
    original = manifold.reconstruct_audio
    opposite = torch.tensor([1.0, -1.0] * 4, dtype=torch.double)
    manifold.reconstruct_audio = lambda x: DiagonalGaussian(
        torch.ones(len(x), AUDIO, dtype=torch.double) * opposite[: len(x), None], torch.zeros(len(x), AUDIO)
    )
    result = cycle_mix(remixer, manifold, e[:1], v[:1], valid[:1], "a", options=OPTIMUM)
    manifold.reconstruct_audio = original
    torch.testing.assert_close(result.embedding, normalize(remixer(e[:1], v[:1], valid[:1]).mean, dim=1))
    assert not torch.allclose(result.embedding, found.embedding[:1])


def test_an_optimum_without_noise_or_distance_is_reached():
    remixer, manifold = networks()
    e, v, valid = scenes()
    still = replace(OPTIMUM, noise_scale=0.0)
    found = cycle_mix(remixer, manifold, e, v, valid, range(3), slot_weights=WEIGHTS, options=still).embedding
    torch.testing.assert_close(found, best_directions(manifold, e, valid))
    held = cycle_mix(remixer, manifold, e, v, valid, range(3), options=replace(still, trust_radius=1.0)).embedding
    torch.testing.assert_close(held, normalize(remixer(e, v, valid).mean, dim=1))


@pytest.mark.parametrize("options", [ONCE, SHORT, OPTIMUM, replace(SHORT, proposal="optimum", trust_radius=0.3)])
def test_a_residual_s_mean_reaches_every_iteration(options: CycleMixOptions):
    plain, manifold = networks()
    remixer = Remixer(MANIFOLD, VISUAL, AUDIO, replace(plain.options, residual="mean")).double().eval()
    remixer.load_state_dict(plain.state_dict())
    inputs, means = scenes(), torch.randn(3, AUDIO, dtype=torch.double)
    heard = torch.stack([means / 4, 3 * means / 4], dim=1)  # of the first slots
    found = cycle_mix(remixer, manifold, *inputs, range(3), options=options, source_audio=heard)
    for row in range(3):
        shifted = copy.deepcopy(plain)
        head = shifted.mean_head[-1]
        head.bias.data += normalize(means[row], dim=0) * AUDIO**0.5
        alone = cycle_mix(shifted, manifold, *(x[row : row + 1] for x in inputs), [row], options=options)
        torch.testing.assert_close(found.embedding[row : row + 1], alone.embedding)
        torch.testing.assert_close(found.history[row : row + 1], alone.history)


def test_a_full_scene_takes_the_fed_back_draw_beyond_the_slots():
    remixer, manifold = networks(max_slots=4)
    assert cycle_mix(remixer, manifold, *scenes(), range(3), options=SHORT).score.isfinite().all()
    with pytest.raises(ValueError, match="4 slots, at most 3"):
        cycle_mix(networks(max_slots=3)[0], manifold, *scenes(), range(3), options=SHORT)


def test_low_precision_is_scored_in_float32():
    remixer, manifold = networks()
    inputs = [part.float() if part.is_floating_point() else part for part in scenes()]
    with torch.autocast("cpu", torch.bfloat16):
        result = cycle_mix(remixer.float(), manifold.float(), *inputs, range(3), options=SHORT)
    assert result.embedding.dtype == result.history.dtype == torch.float32
    exact = cycle_mix(remixer, manifold, *inputs, range(3), options=ONCE)
    with torch.autocast("cpu", torch.bfloat16):
        rough = cycle_mix(remixer, manifold, *inputs, range(3), options=ONCE)
    torch.testing.assert_close(rough.embedding, exact.embedding, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "max"}, "score must be one of mean, min, std, found 'max'"),
        ({"feedback": "x"}, "feedback must be one of append, replace, found 'x'"),
        ({"iterations": 0}, "iterations must be at least 1, found 0"),
        ({"samples": 0}, "samples must be at least 1, found 0"),
        ({"var_samples": 0}, "var_samples must be at least 1, found 0"),
        ({"feedback_samples": -1}, "feedback_samples must be at least 0, found -1"),
        ({"noise_scale": float("nan")}, "noise_scale must be at least 0, found nan"),
        ({"proposal": "x"}, "proposal must be one of draws, optimum, found 'x'"),
        ({"trust_radius": -1.0}, "trust_radius must be at least 0, found -1.0"),
        (
            {"proposal": "optimum", "score": "min"},
            r"proposal=optimum is known for model\.cycle_mix\.score=mean alone, found 'min'",
        ),
    ],
)
def test_bad_options_are_named(options: dict, message: str):
    with pytest.raises(ValueError, match=rf"^model\.cycle_mix\.{message}$"):
        CycleMixOptions(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scene_keys": "ab"}, "scene_keys must name 3 scenes, got 2"),
        ({"slot_weights": torch.ones(3, 2)}, r"slot_weights must have shape \(3, 4\), got \(3, 2\)"),
        ({"slot_weights": -torch.ones(3, 4)}, "slot_weights must be finite and at least 0"),
        ({"slot_weights": torch.eye(4)[:3]}, "scene 'b' has no source to be scored against"),
        ({"options": CycleMixOptions(feedback="replace")}, "scene 'b' has no source to be scored against"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str):
    remixer, manifold = networks()
    with pytest.raises(ValueError, match=message):
        cycle_mix(remixer, manifold, *scenes(), **{"scene_keys": "abc", "options": SHORT, **arguments})


def test_bad_scenes_and_modules_are_named():
    remixer, manifold = networks()
    e, v, valid = scenes()
    spoilt = v.clone()
    spoilt[2, 1, 0] = torch.inf
    with pytest.raises(ValueError, match="visual_tokens of scene 'c' hold a NaN or infinity in slot 1"):
        cycle_mix(remixer, manifold, e, spoilt, valid, "abc")
    empty = valid.clone()
    empty[0] = False
    with pytest.raises(ValueError, match="scene 'a' has no source to be scored against"):
        cycle_mix(remixer, manifold, e, v, empty, "abc")
    with pytest.raises(ValueError, match="feedback 'replace' needs a valid slot 0, scene 'a' has none"):
        cycle_mix(remixer, manifold, e, v, empty, "abc", options=CycleMixOptions(feedback="replace"))
    with pytest.raises(ValueError, match="manifold takes audio of width 3, remixer gives 4"):
        cycle_mix(remixer, Manifold(VISUAL, 3, ManifoldOptions(MANIFOLD)).eval(), e, v, valid, "abc")
    remixer.train()
    with pytest.raises(ValueError, match=r"remixer is in training mode, .*: call remixer.eval\(\)"):
        cycle_mix(remixer, manifold, e, v, valid, "abc")
