"""Every method of mixing against direct calls of the modules that it is made of."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.mixing.methods import (
    MapperMixer,
    MeanMixer,
    OracleMixer,
    SS2AMixer,
    source_slots,
    unit_audio,
)
from lightning_ss2a.generation.scene.source import Scene, Source
from lightning_ss2a.models import CycleMixOptions, cycle_mix
from lightning_ss2a.models.layers.keyed_noise import keyed_draw
from lightning_ss2a.training import RemixerModule
from tests.manifold_examples import AUDIO_WIDTH, VISUAL_WIDTH
from tests.scene_examples import make_mapper, make_remixer, make_translator, save_manifold

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> RemixerModule:
    return make_remixer(save_manifold(tmp_path_factory.mktemp("manifold") / "manifold.ckpt")).eval()


def visual(seed: int) -> torch.Tensor:
    return torch.randn(VISUAL_WIDTH, generator=torch.Generator().manual_seed(seed))


def audio(seed: int) -> torch.Tensor:
    return torch.randn(AUDIO_WIDTH, generator=torch.Generator().manual_seed(100 + seed))


def seen(number: int, weight: float = 1.0) -> Source:
    return Source("image", f"thing{number}", weight, visual=visual(number))


def heard(number: int, weight: float = 1.0) -> Source:
    return Source("audio", f"sound{number}", weight, audio=audio(number))


def scene(*sources: Source, key: str = "scene", whole: int | None = 9) -> Scene:
    return Scene(key, tuple(sources), None if whole is None else visual(whole))


def remix(module: RemixerModule, sources: Sequence[int], whole: int | None = 9) -> torch.Tensor:
    """The Remixer called directly: unit mean of the Gaussian."""
    v = torch.stack([torch.zeros(VISUAL_WIDTH) if whole is None else visual(whole), *map(visual, sources)])
    valid = torch.tensor([[whole is not None] + [True] * len(sources)])
    e = module.manifold.project_visual(v).mean
    return normalize(module.remixer(e[None], v[None], valid).mean[0], dim=-1)


@torch.no_grad()
def test_the_mean_is_what_the_remixer_gives_for_the_same_tokens(module: RemixerModule):
    scenes = [scene(seen(1), seen(2)), scene(seen(3), key="other", whole=None)]
    first, second = SS2AMixer(module).mix(scenes, seed=0)
    torch.testing.assert_close(first.embedding, remix(module, [1, 2]), **CLOSE)
    torch.testing.assert_close(second.embedding, remix(module, [3], whole=None), **CLOSE)
    alone = normalize(module.manifold.reconstruct_audio(module.manifold.project_visual(visual(2)).mean).mean, dim=-1)
    torch.testing.assert_close(first.sources[1], alone, **CLOSE)
    assert (first.labels, second.labels) == (("thing1", "thing2"), ("thing3",))


@torch.no_grad()
def test_sounds_have_no_look_or_a_translated_one(module: RemixerModule):
    manifold, translator = module.manifold, make_translator().eval().translator
    e = torch.cat([manifold.project_visual(visual(1)).mean[None], manifold.project_audio(audio(1)).mean[None]])
    for translate, look in ((None, torch.zeros(VISUAL_WIDTH)), (translator, translator(audio(1)))):
        (mixed,) = SS2AMixer(module, translate).mix([scene(heard(1), seen(1), whole=None)], seed=0)
        v = torch.stack([visual(1), look])
        expected = module.remixer(e[None], v[None], torch.ones(1, 2, dtype=torch.bool)).mean[0]
        torch.testing.assert_close(mixed.embedding, normalize(expected, dim=-1), **CLOSE)
        assert mixed.labels == ("thing1", "sound1")  # those seen come first


@torch.no_grad()
def test_weights_average_over_sets_of_sources(module: RemixerModule):
    (mixed,) = SS2AMixer(module).mix([scene(seen(1, 2.0), seen(2, 0.5), seen(3, 1.0))], seed=0)
    expected = 0.25 * remix(module, [1, 2, 3]) + 0.25 * remix(module, [1, 3]) + 0.5 * remix(module, [1])
    torch.testing.assert_close(mixed.embedding, normalize(expected, dim=-1), **CLOSE)
    assert mixed.weights.tolist() == [1.0, 0.25, 0.5]


@torch.no_grad()
def test_an_untrained_residual_is_the_mean_of_each_set(tmp_path: Path):
    module = make_remixer(save_manifold(tmp_path / "manifold.ckpt"), residual="mean").eval()
    (mixed,) = SS2AMixer(module).mix([scene(seen(1, 2.0), seen(2, 0.5), seen(3, 1.0))], seed=0)
    e = module.manifold.project_visual(torch.stack([visual(n) for n in (1, 2, 3)])).mean
    alone = normalize(module.manifold.reconstruct_audio(e).mean, dim=1)
    sets = [alone.mean(0), alone[[0, 2]].mean(0), alone[0]]
    expected = sum(share * normalize(each, dim=0) for share, each in zip((0.25, 0.25, 0.5), sets, strict=True))
    torch.testing.assert_close(mixed.embedding, normalize(expected, dim=0), **CLOSE)


def test_a_vanishing_weight_is_a_source_left_out_and_equal_weights_change_nothing(module: RemixerModule):
    mixer = SS2AMixer(module)
    faint, without, equal, plain = mixer.mix(
        [
            scene(seen(1), seen(2, 1e-7)),
            scene(seen(1)),
            scene(seen(1, 3.0), seen(2, 3.0)),
            scene(seen(1), seen(2)),
        ],
        seed=0,
    )
    torch.testing.assert_close(faint.embedding, without.embedding, **CLOSE)
    torch.testing.assert_close(equal.embedding, plain.embedding, **CLOSE)
    assert (plain.embedding - without.embedding).abs().max() > 1e-3


@torch.no_grad()
def test_draws_belong_to_key_and_seed(module: RemixerModule):
    mixer = SS2AMixer(module, sampling="draw")
    scenes = [scene(seen(1), key="a"), scene(seen(1), key="b")]
    first, second = (mixed.embedding for mixed in mixer.mix(scenes, seed=3))
    (again,) = (mixed.embedding for mixed in mixer.mix(scenes[:1], seed=3))
    torch.testing.assert_close(first, again, **CLOSE)
    assert (first - second).abs().max() > 1e-3
    v = torch.stack([visual(9), visual(1)])[None]
    gaussian = module.remixer(module.manifold.project_visual(v).mean, v, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(first, keyed_draw(gaussian, 3, ["a"])[0], **CLOSE)


@torch.no_grad()
def test_cycle_mix_weights_its_score(module: RemixerModule):
    options = CycleMixOptions(iterations=3, samples=16)
    (mixed,) = SS2AMixer(module, sampling="cycle_mix", cycle_mix=options).mix(
        [scene(seen(1, 0.1), seen(2, 1.0))], seed=1
    )
    v = torch.stack([visual(9), visual(1), visual(2)])[None]
    expected = cycle_mix(
        module.remixer,
        module.manifold,
        module.manifold.project_visual(v).mean,
        v,
        torch.ones(1, 3, dtype=torch.bool),
        ["scene"],
        options=options,
        seed=1,
        slot_weights=torch.tensor([[0.0, 0.1, 1.0]]),
    )
    torch.testing.assert_close(mixed.embedding, expected.embedding[0], **CLOSE)


def test_cycle_mix_that_replaces_finds_an_empty_first_slot(module: RemixerModule):
    options = CycleMixOptions(iterations=2, samples=4, feedback="replace")
    (mixed,) = SS2AMixer(module, sampling="cycle_mix", cycle_mix=options).mix([scene(seen(1), whole=None)], seed=0)
    torch.testing.assert_close(mixed.embedding.norm(), torch.tensor(1.0), **CLOSE)


def test_more_sources_than_slots_are_refused(tmp_path: Path):
    module = make_remixer(save_manifold(tmp_path / "manifold.ckpt"), max_slots=4).eval()
    SS2AMixer(module).check(scene(*map(seen, range(3))))
    with pytest.raises(InputError, match=r"^4 sources, and the Remixer has slots for 3; drop some"):
        SS2AMixer(module).check(scene(*map(seen, range(4))))


@torch.no_grad()
def test_the_mean_of_sources_is_weighted(module: RemixerModule):
    manifold = module.manifold
    (mixed,) = MeanMixer(manifold).mix([scene(seen(1, 3.0), heard(2, 1.0))], seed=0)
    cmss = [manifold.project_visual(visual(1)).mean, manifold.project_audio(audio(2)).mean]
    alone = [normalize(manifold.reconstruct_audio(e).mean, dim=-1) for e in cmss]
    torch.testing.assert_close(mixed.embedding, normalize(3 * alone[0] + alone[1], dim=-1), **CLOSE)
    torch.testing.assert_close(mixed.sources, torch.stack([alone[0], normalize(audio(2), dim=-1)]), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("flavour", ["regression", "diffusion"])
def test_the_mapper_sees_the_whole_picture(flavour: str):
    mapper = make_mapper(flavour=flavour).eval()
    (mixed,) = MapperMixer(mapper).mix([scene(seen(1))], seed=2)
    expected = mapper.predict_audio({"global_visual": visual(9)[None], "key": ["scene"]}, 2)[0]
    torch.testing.assert_close(mixed.embedding, normalize(expected, dim=-1), **CLOSE)
    assert mixed.sources.shape == (0, AUDIO_WIDTH)


@pytest.mark.parametrize("wrong", [scene(seen(1), whole=None), scene(seen(1), heard(1))])
def test_the_mapper_hears_nothing_but_a_picture(wrong: Scene):
    with pytest.raises(InputError, match="method v2a_mapper hears a whole picture and nothing else"):
        MapperMixer(make_mapper()).check(wrong)


def test_the_oracle_is_the_embedding_of_the_one_sound():
    (mixed,) = OracleMixer().mix([scene(heard(1), whole=None)], seed=0)
    torch.testing.assert_close(mixed.embedding, normalize(audio(1), dim=-1), **CLOSE)
    for wrong in (scene(seen(1)), scene(heard(1), heard(2)), scene(heard(1), seen(1))):
        with pytest.raises(InputError, match="method oracle sounds the embedding of one real sound"):
            OracleMixer().check(wrong)


def test_a_scene_is_mixed_the_same_in_any_batch(module: RemixerModule):
    scenes = [
        scene(seen(1, 0.3), seen(2)),
        scene(heard(1), key="b", whole=None),
        scene(seen(4), heard(2, 2.0), seen(5), key="c"),
    ]
    for mixer in (SS2AMixer(module), SS2AMixer(module, sampling="cycle_mix"), MeanMixer(module.manifold)):
        together = mixer.mix(scenes, seed=0)
        for own, mixed in zip(scenes, together, strict=True):
            (alone,) = mixer.mix([replace(own)], seed=0)
            torch.testing.assert_close(mixed.embedding, alone.embedding, **CLOSE)
            torch.testing.assert_close(mixed.sources, alone.sources, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("whole", [9, None])
def test_released_weights_attend_to_slots_of_nothing(module: RemixerModule, tmp_path: Path, whole: int | None):
    """As published: υ(0) where a picture has no source, e = 0 where scenes are composed, whatever else is mixed."""
    manifold = save_manifold(tmp_path / "manifold.ckpt")
    published = make_remixer(manifold, mask_padding=False, max_slots=5).eval()
    width = published.manifold.options.width
    seen_there = torch.stack([visual(1), visual(2)])
    v, e = torch.zeros(5, VISUAL_WIDTH), torch.zeros(5, width)
    if whole is not None:
        v[0] = visual(whole)
        e = published.manifold.project_visual(torch.zeros(5, VISUAL_WIDTH)).mean
        e[0] = published.manifold.project_visual(v[:1]).mean[0]
    v[1:3], e[1:3] = seen_there, published.manifold.project_visual(seen_there).mean
    expected = normalize(published.remixer(e[None], v[None], torch.ones(1, 5, dtype=torch.bool)).mean[0], dim=-1)
    beside = scene(seen(3), key="beside", whole=None if whole else 8)
    for scenes in ([scene(seen(1), seen(2), whole=whole)], [scene(seen(1), seen(2), whole=whole), beside]):
        torch.testing.assert_close(SS2AMixer(published).mix(scenes, seed=0)[0].embedding, expected, **CLOSE)


def test_a_source_that_is_heard_is_its_own_sound(module: RemixerModule):
    """Of one that is seen χ(υ(v)) is all that is known."""
    both = scene(seen(1), heard(2))
    for mixer in (SS2AMixer(module), MeanMixer(module.manifold)):
        (mixed,) = mixer.mix([both], 0)
        assert mixed.heard == (False, True)
        torch.testing.assert_close(mixed.sources[1], normalize(audio(2), dim=0))
        slots = source_slots([both], module.manifold)
        torch.testing.assert_close(mixed.sources[0], unit_audio(slots, module.manifold)[0, 0])


def test_mixers_tell_what_they_make_of_sounds(module: RemixerModule):
    sounds = torch.stack([audio(1), audio(2)])
    with torch.no_grad():
        chi = module.manifold.reconstruct_audio(module.manifold.project_audio(sounds).mean).mean
    for mixer in (SS2AMixer(module), MeanMixer(module.manifold)):
        torch.testing.assert_close(mixer.predict_sounds(sounds), normalize(chi, dim=1))
    assert torch.equal(OracleMixer().predict_sounds(sounds), sounds)


def test_the_oracle_does_not_take_a_text_for_a_sound():
    read = Scene("scene", (Source("text", "rain", audio=audio(1)),), None)
    with pytest.raises(InputError, match="one real sound"):
        OracleMixer().check(read)
