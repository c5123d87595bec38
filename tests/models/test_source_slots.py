"""Sources of any modality become the tokens that the Remixer reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ss2a.models import AudioToVisual, AudioToVisualOptions, DiagonalGaussian, Manifold, ManifoldOptions
from lightning_ss2a.models.source_slots import (
    SourceSlots,
    audio_slots,
    fill_slots,
    join_slots,
    mean_of_sources,
    visual_slots,
    zero_projection,
)

VISUAL, AUDIO, MANIFOLD = 5, 4, 6


def make_manifold(seed: int = 0) -> Manifold:
    torch.manual_seed(seed)
    return Manifold(VISUAL, AUDIO, ManifoldOptions(MANIFOLD, (8,), (8,))).double().eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def some_slots(manifold: Manifold) -> tuple[SourceSlots, SourceSlots, SourceSlots]:
    """A global embedding, pictures and sounds of two scenes."""
    there = torch.ones(2, 1, dtype=torch.bool)
    return (
        visual_slots(normal(2, 1, VISUAL), there, manifold.project_visual, weight=0.0),
        visual_slots(
            normal(2, 3, VISUAL, seed=1), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool(), manifold.project_visual
        ),
        audio_slots(normal(2, 2, AUDIO, seed=2), torch.tensor([[1, 0], [1, 1]]).bool(), manifold),
    )


def test_things_seen_have_their_projection_and_their_embedding():
    manifold, visual = make_manifold(), normal(2, 3, VISUAL)
    slots = visual_slots(visual, torch.ones(2, 3, dtype=torch.bool), manifold.project_visual)
    expected = manifold.project_visual(visual)
    torch.testing.assert_close(slots.cmss.mean, expected.mean)
    torch.testing.assert_close(slots.cmss.log_variance, expected.log_variance)
    assert slots.visual is visual
    assert slots.weight.tolist() == [[1.0] * 3] * 2


def test_things_heard_have_no_visual_unless_a_translator_gives_one():
    manifold, audio, valid = make_manifold(), normal(2, 3, AUDIO), torch.ones(2, 3, dtype=torch.bool)
    plain = audio_slots(audio, valid, manifold)
    torch.testing.assert_close(plain.cmss.mean, manifold.project_audio(audio).mean)
    assert plain.visual.shape == (2, 3, VISUAL)
    assert not plain.visual.any()
    translator = AudioToVisual(AUDIO, VISUAL, AudioToVisualOptions((8,))).double().eval()
    translated = audio_slots(audio, valid, manifold, translator)
    torch.testing.assert_close(translated.visual, translator(audio))
    torch.testing.assert_close(translated.cmss.mean, plain.cmss.mean)
    assert translated.weight.tolist() == plain.weight.tolist() == [[1.0] * 3] * 2


def test_slots_side_by_side():
    parts = some_slots(make_manifold())
    joined = join_slots(parts)
    assert joined.valid.tolist() == [[True, True, True, True, True, False], [True, True, False, False, True, True]]
    assert joined.weight.tolist() == [[0.0] + [1.0] * 5] * 2
    start = 0
    for part in parts:
        columns = slice(start, start := start + part.valid.shape[1])
        for found, expected in (
            (joined.cmss.mean, part.cmss.mean),
            (joined.cmss.log_variance, part.cmss.log_variance),
            (joined.visual, part.visual),
        ):
            assert torch.equal(found[:, columns], expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tokens_are_means_or_draws_of_the_gaussian(seed: int):
    slots = some_slots(make_manifold())[1]
    e, v, valid = slots.tokens()
    assert torch.equal(e, slots.cmss.mean)
    assert v is slots.visual
    assert valid is slots.valid
    for draws in (1, 4):
        torch.manual_seed(seed)
        drawn = slots.tokens(draws)[0]
        noise = torch.randn(e.shape, generator=torch.Generator().manual_seed(seed), dtype=e.dtype)
        expected = slots.cmss.mean + noise * (slots.cmss.log_variance / 2).exp() / draws**0.5
        torch.testing.assert_close(drawn, expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mean_of_sources_is_that_of_unit_reconstructions_of_what_has_a_weight(seed: int):
    manifold = make_manifold(seed)
    slots = join_slots(some_slots(manifold))
    found = mean_of_sources(slots, manifold)
    for row in range(2):
        audio = [
            manifold.reconstruct_audio(slots.cmss.mean[row, slot]).mean.detach().numpy()
            for slot in range(6)
            if slots.valid[row, slot] and slots.weight[row, slot] > 0
        ]
        assert len(audio) == [4, 3][row]
        np.testing.assert_allclose(
            found[row].detach(), np.mean([a / np.linalg.norm(a) for a in audio], axis=0), rtol=1e-12
        )


def test_weights_weigh_the_mean_of_sources():
    manifold = make_manifold()
    slots = join_slots(some_slots(manifold))
    weights = torch.rand(slots.weight.shape, generator=torch.Generator().manual_seed(0)).to(slots.weight) * 0.3
    found = mean_of_sources(replace(slots, weight=weights), manifold)
    audio = torch.nn.functional.normalize(manifold.reconstruct_audio(slots.cmss.mean).mean, dim=-1)
    for row, there in enumerate(slots.valid):
        expected = (audio[row][there] * weights[row][there, None]).sum(0) / weights[row][there].sum()
        torch.testing.assert_close(found[row], expected)


def test_a_scene_of_a_global_embedding_alone_is_its_reconstruction_and_an_empty_one_is_zero():
    manifold = make_manifold()
    slots = some_slots(manifold)[0]
    expected = torch.nn.functional.normalize(manifold.reconstruct_audio(slots.cmss.mean[:, 0]).mean, dim=-1)
    torch.testing.assert_close(mean_of_sources(slots, manifold), expected)
    empty = SourceSlots(slots.cmss, slots.visual, torch.zeros_like(slots.valid), slots.weight)
    assert not mean_of_sources(empty, manifold).any()


def test_what_stands_in_empty_slots_does_not_matter():
    manifold = make_manifold()
    slots = join_slots(some_slots(manifold))
    empty = ~slots.valid.unsqueeze(-1)
    spoiled = DiagonalGaussian(slots.cmss.mean.masked_fill(empty, torch.nan), slots.cmss.log_variance)
    other = SourceSlots(spoiled, slots.visual.masked_fill(empty, torch.nan), slots.valid, slots.weight)
    assert torch.equal(mean_of_sources(other, manifold), mean_of_sources(slots, manifold))


def test_slots_without_a_source_are_filled_with_nothing():
    manifold = make_manifold()
    slots = join_slots(some_slots(manifold))
    filled = fill_slots(slots, 8, manifold.project_visual, weight=0.5)
    nothing = manifold.project_visual(torch.zeros(VISUAL, dtype=torch.double))
    there = torch.nn.functional.pad(slots.valid, (0, 2))
    assert filled.valid.all()
    assert filled.valid.shape == (2, 8)
    torch.testing.assert_close(filled.cmss.mean[there], slots.cmss.mean[slots.valid])
    torch.testing.assert_close(filled.cmss.log_variance[there], slots.cmss.log_variance[slots.valid])
    torch.testing.assert_close(filled.cmss.mean[~there], nothing.mean.expand(7, -1))
    torch.testing.assert_close(filled.cmss.log_variance[~there], nothing.log_variance.expand(7, -1))
    assert not filled.visual[~there].any()
    assert filled.weight.tolist()[1] == [0.0, 1.0, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5]
    assert fill_slots(slots, 3, manifold.project_visual).valid.shape == (2, 6)
    composed = fill_slots(slots, 8, zero_projection(MANIFOLD))
    assert not composed.cmss.sample(3)[~there].any(), "e = 0, without noise"
