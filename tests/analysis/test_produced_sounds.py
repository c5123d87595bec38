from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from lightning_ss2a.analysis.produced_sounds import (
    Heard,
    OneEmbedding,
    Studio,
    Thing,
    TrueSounds,
    one_of_each,
    read_compositions,
    read_things,
)
from lightning_ss2a.data.loading.dataset import ShardDataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.mixing.methods import OracleMixer
from lightning_ss2a.generation.scene.source import Scene
from lightning_ss2a.perception.encoders.protocols import AudioEncoder
from tests.generation.small_stack import Ear
from tests.generation.tone_generator import ToneGenerator

SHARDS = Path(__file__).parents[2] / "shards"
PAIRS, SCENES = str(SHARDS / "demo"), str(SHARDS / "demo_scenes")


@pytest.fixture(scope="module")
def things() -> list[Thing]:
    return read_things(PAIRS, "fold2")


def test_things_are_annotated_and_one_of_each_group_and_name_is_kept(things: list[Thing]):
    assert all(thing.key.startswith(f"{thing.name}-") for thing in things)
    kept = one_of_each(things, {"duck", "cat", "guitar"} | {thing.name for thing in things[:4]})
    assert len({(thing.group, thing.name) for thing in kept}) == len(kept) < len(things)
    assert kept[0] is things[0]


def test_sources_of_compositions_are_views_of_their_things(things: list[Thing]):
    """The csv's order is that of the sources: each is, of all views of the split, one of its own thing."""
    dataset = ShardDataset(PAIRS, "fold2")
    keys, views = dataset.columns()["key"], normalize(dataset.views["visual"], dim=-1)
    compositions = read_compositions(SCENES, "fold2", things)
    assert len(compositions) > 20
    for each in compositions[:20]:
        assert len(each.things) == len(each.scene.sources)
        for thing, source in zip(each.things, each.scene.sources, strict=True):
            assert source.visual is not None
            assert source.label == thing.name
            assert torch.max(views[keys.index(thing.key)] @ normalize(source.visual, dim=0)) > 0.999


def test_compositions_of_things_that_are_left_out_are_left_out(things: list[Thing]):
    gone = things[0].key
    every, fewer = (read_compositions(SCENES, "fold2", own) for own in (things, things[1:]))
    assert [each.scene.key for each in fewer] == [
        each.scene.key for each in every if gone not in {thing.key for thing in each.things}
    ]
    assert len(fewer) < len(every)


def amplitudes(*tones: int) -> torch.Tensor:
    """An embedding with these tones."""
    return normalize(torch.eye(8)[list(tones)].sum(0), dim=0)


def studio(**options) -> Studio:
    ear: AudioEncoder = Ear()
    return Studio(ToneGenerator(8, "ear", gain=0.2), ear, 1.0, count=2, **options)


def test_a_studio_names_what_was_asked_for():
    thing = Thing("rain-1", "rain", 1, torch.ones(4), amplitudes(2, 7))
    (heard,) = studio().hear([Scene("rain-1", (thing.heard(),))], OracleMixer())
    assert isinstance(heard, Heard)
    assert {*heard.labels} == {"Rain", "Water"}
    torch.testing.assert_close(normalize(heard.embedding, dim=0), amplitudes(2, 7), atol=1e-3, rtol=0)
    torch.testing.assert_close(heard.wanted, amplitudes(2, 7))


def test_a_generator_is_told_the_sources_of_true_sounds_or_the_mixture_alone(things: list[Thing]):
    (composition,) = read_compositions(SCENES, "fold2", things)[:1]
    own = replace(
        composition,
        things=tuple(replace(thing, audio=amplitudes(row)) for row, thing in enumerate(composition.things)),
        audio=3 * amplitudes(0, 1),
    )
    (told,) = TrueSounds([own]).mix([own.scene], 0)
    torch.testing.assert_close(told.sources, torch.eye(8)[: len(own.things)])
    torch.testing.assert_close(told.embedding, amplitudes(0, 1))
    assert told.labels == tuple(thing.name for thing in own.things)
    (alone,) = OneEmbedding(TrueSounds([own])).mix([own.scene], 0)
    assert (alone.sources.shape, alone.labels) == ((0, 8), ())
    assert torch.equal(alone.embedding, told.embedding)
    with pytest.raises(InputError, match="is none of the compositions"):
        TrueSounds([own]).check(replace(own.scene, key="other"))
