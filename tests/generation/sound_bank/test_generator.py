"""Real sounds in, mixes out: what is chosen, how loud, how long, and what is said of it."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ss2a.builders.sound_bank import build_bank
from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.protocols import SoundGenerator, SoundRequest
from lightning_ss2a.generation.sound_bank import RetrievalOptions, SoundBank
from lightning_ss2a.perception.media.loudness import loudness
from tests.bank_examples import TONES, Bands, make_sounds
from tests.perception.media_files import sine, sound_file

RATE = 32_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of three tones and noise, each in a group and split of its own."""
    root = tmp_path_factory.mktemp("bank")
    make_sounds(root / "sounds")
    rows = [f"{label}/tone.wav,{label},{label} maker,CC0-1.0,{label}s,fold{i}" for i, label in enumerate(TONES)]
    table = ["file,label,author,licence,group,split", *rows, "noise.wav,noise,me,CC-BY-4.0,,"]
    (root / "sounds" / "list.csv").write_text("\n".join(table) + "\n")
    build_bank(str(root / "sounds" / "list.csv"), str(root / "bank"), Bands(), audio_views=2, progress=False)
    return root / "bank"


@pytest.fixture(scope="module")
def bank(folder: Path) -> SoundBank:
    return SoundBank(str(folder), Bands())


def embedded(*labels: str) -> Tensor:
    return Bands().encode([sine(TONES[label], 1.0) for label in labels])


def request(*labels: str, weights: list[float] | None = None, seed: int = 0) -> SoundRequest:
    """A request for tones; its mixed embedding is their mean."""
    sources = embedded(*labels)
    given = torch.tensor(weights or [1.0] * len(labels))
    return SoundRequest("/".join(labels), sources.mean(dim=0), sources, given, labels, seed)


def labels_of(details: object) -> list[str]:
    return [sound["label"] for sound in details["sounds"]]  # type: ignore[index]


def amplitude(waveform: np.ndarray, frequency: float) -> float:
    """Of a tone in a sound, by the discrete Fourier transform at its frequency."""
    phase = np.exp(-2j * np.pi * frequency * np.arange(len(waveform)) / RATE)
    return 2 * abs(np.mean(waveform * phase))


def test_it_is_a_generator_that_says_that_it_retrieves(bank: SoundBank):
    assert isinstance(bank, SoundGenerator)
    assert bank.is_retrieval
    assert (bank.audio_encoder, bank.width, bank.sample_rate) == ("bands", Bands.width, RATE)


def test_each_source_is_the_nearest_real_sound_with_its_credits(bank: SoundBank):
    (made,) = bank.generate([request("low", "high", weights=[1.0, 0.5])], 5.0)
    first, second = made.details["sounds"]
    assert (first["label"], second["label"]) == ("low", "high")
    assert (first["author"], first["licence"], first["source_label"]) == ("low maker", "CC0-1.0", "low")
    assert (first["weight"], second["weight"]) == (1.0, 0.5)
    assert first["similarity"] > 0.95
    assert made.details["method"] == "retrieval"
    assert json.loads(json.dumps(made.details)) == made.details


@pytest.mark.parametrize("seconds", [0.2, 1.0, 3.0, 10.0, 10.24])
def test_the_length_is_exact_and_nothing_is_clipped(bank: SoundBank, seconds: float):
    (made,) = bank.generate([request("low", "middle", "high")], seconds)
    assert made.waveform.shape == (round(seconds * RATE),)
    assert made.waveform.dtype == np.float32
    assert np.abs(made.waveform).max() <= 0.99 + 1e-6


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.1])
def test_sources_are_as_loud_as_their_weights_ask(bank: SoundBank, weight: float):
    (made,) = bank.generate([request("middle", "high", weights=[2.0, 2.0 * weight])], 6.0)
    (alone,) = bank.generate([request("middle")], 6.0)
    (quiet,) = bank.generate([request("high")], 6.0)
    assert loudness(alone.waveform, RATE) == pytest.approx(-23.0, abs=0.1)
    # The tones do not overlap in frequency, so that each can be measured in the mix.
    ratio = (amplitude(made.waveform, TONES["high"]) / amplitude(quiet.waveform, TONES["high"])) / (
        amplitude(made.waveform, TONES["middle"]) / amplitude(alone.waveform, TONES["middle"])
    )
    assert 20 * np.log10(ratio / weight) == pytest.approx(0, abs=0.5)
    assert made.details["sounds"][1]["loudness"] == pytest.approx(-23.0 + 20 * np.log10(weight), abs=0.01)


def test_a_mix_that_would_clip_is_scaled_and_says_so(folder: Path):
    loud = SoundBank(str(folder), Bands(), retrieval=RetrievalOptions(loudness=-5.0))
    (made,) = loud.generate([request("low", "middle", "high")], 4.0)
    assert np.abs(made.waveform).max() == pytest.approx(0.99, abs=1e-4)
    scaled = made.details["scaled_by_decibels"]
    assert scaled < -1
    assert made.details["sounds"][0]["loudness"] == pytest.approx(-5.0 + scaled, abs=0.01)
    (alone,) = SoundBank(str(folder), Bands()).generate([request("middle")], 4.0)
    assert alone.details["scaled_by_decibels"] == 0


def test_the_score_is_the_cosine_of_the_result_to_what_was_wanted(bank: SoundBank):
    from lightning_ss2a.perception.media.waveform import polyphase

    wanted = request("low", "high")
    (made,) = bank.generate([wanted], 4.0)
    heard = Bands().encode([polyphase(made.waveform, RATE, 16_000)])[0]
    expected = float(heard @ wanted.embedding / heard.norm() / wanted.embedding.norm())
    assert made.score == pytest.approx(expected, abs=1e-5)
    assert made.score > 0.9


def test_a_rendering_depends_on_its_own_request_alone(bank: SoundBank):
    wanted = [request("low", "high", seed=5), request("middle", seed=6), request("high", "middle", seed=7)]
    together = bank.generate(wanted, 4.0)
    alone = [bank.generate([one], 4.0)[0] for one in reversed(wanted)][::-1]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first.waveform, second.waveform)
        assert first.details == second.details


def test_the_seed_decides_how_sounds_lie_and_not_which(bank: SoundBank):
    first, again, other = (bank.generate([request("low", seed=seed)], 7.0)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.waveform, again.waveform)
    assert not np.array_equal(first.waveform, other.waveform)
    assert labels_of(first.details) == labels_of(other.details)


def test_sources_that_are_apart_get_different_sounds(folder: Path):
    low = embedded("low")[0]
    apart = low + 0.5 * embedded("middle")[0]
    wanted = replace(request("low", "low"), sources=torch.stack([low, apart]), labels=("one", "other"))
    (made,) = SoundBank(str(folder), Bands(), retrieval=RetrievalOptions(candidates=1)).generate([wanted], 3.0)
    assert labels_of(made.details) == ["low", "middle"]
    share = SoundBank(str(folder), Bands(), retrieval=RetrievalOptions(same_source=0.8, candidates=1))
    assert labels_of(share.generate([wanted], 3.0)[0].details) == ["low", "low"]


def test_near_sounds_are_tried_in_the_mix(folder: Path):
    """A source between two tones: the nearest alone, but with what else sounds the other one fits the whole better."""
    low, middle, high = embedded("low", "middle", "high")
    sources = torch.stack([low + 0.9 * middle, high])
    wanted = SoundRequest("x", middle + high, sources, torch.ones(2), ("", ""), 0)
    nearest = SoundBank(str(folder), Bands(), retrieval=RetrievalOptions(candidates=1)).generate([wanted], 3.0)[0]
    tried = SoundBank(str(folder), Bands(), retrieval=RetrievalOptions(candidates=3)).generate([wanted], 3.0)[0]
    assert labels_of(nearest.details) == ["low", "high"]
    assert labels_of(tried.details) == ["middle", "high"]
    assert tried.score > nearest.score + 0.2


def test_without_sources_the_mixed_embedding_is_the_source(bank: SoundBank):
    none = SoundRequest("x", embedded("high")[0], torch.empty(0, Bands.width), torch.empty(0), (), 0)
    (made,) = bank.generate([none], 3.0)
    assert labels_of(made.details) == ["high"]


def test_a_source_without_weight_is_not_heard(bank: SoundBank):
    (made,) = bank.generate([request("low", "high", weights=[0.0, 1.0])], 3.0)
    assert labels_of(made.details) == ["high"]
    assert made.details["sounds"][0]["source_index"] == 1
    assert amplitude(made.waveform, TONES["low"]) < 1e-4


def test_a_bank_may_be_restricted(folder: Path):
    folds = SoundBank(str(folder), Bands(), splits=["fold1", "fold2"])
    assert labels_of(folds.generate([request("low")], 2.0)[0].details) == ["middle"]
    groups = SoundBank(str(folder), Bands(), exclude_groups=["lows"])
    assert labels_of(groups.generate([request("low")], 2.0)[0].details) != ["low"]
    whole = SoundBank(str(folder), Bands())
    assert len({whole.identity, folds.identity, groups.identity}) == 3


def test_every_option_of_retrieval_is_in_the_identity(folder: Path):
    others: dict[str, Any] = {"loudness": -22.9999999, "same_source": 0.98, "candidates": 4}
    assert others.keys() == {field.name for field in fields(RetrievalOptions)}
    options = [RetrievalOptions(), *(RetrievalOptions(**{name: value}) for name, value in others.items())]
    assert len({SoundBank(str(folder), Bands(), retrieval=each).identity for each in options}) == len(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": ["fold9"]}, "has no split 'fold9'; did you mean fold"),
        ({"splits": ["fold0"], "exclude_groups": ["lows"]}, "splits and exclude_groups leave no sound of 4"),
    ],
)
def test_a_restriction_that_leaves_nothing_is_refused(folder: Path, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        SoundBank(str(folder), Bands(), **options)


def test_a_bank_of_another_encoder_is_refused(folder: Path):
    other = Bands()
    other.identity = "other"  # type: ignore[misc]
    with pytest.raises(InputError, match="was built with bands, and this audio encoder is other"):
        SoundBank(str(folder), other)


WANTED = request("low", "high")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(WANTED, embedding=torch.ones(3)), r"low/high: embedding \[3\], sources \[2, 7\].*this bank is 7 wide"),
        (replace(WANTED, weights=torch.ones(3)), r"weights \[3\] and 2 labels do not go together"),
        (replace(WANTED, weights=torch.tensor([1.0, -1.0])), r"weights are \[1.0, -1.0\]; none may be negative"),
        (replace(WANTED, weights=torch.zeros(2)), "one must be above 0"),
        (replace(WANTED, sources=torch.zeros(2, 7)), "sources holds a zero vector"),
        (
            replace(WANTED, embedding=torch.full((7,), torch.nan)),
            "embedding holds a zero vector or numbers that are not",
        ),
        (
            replace(WANTED, sources=torch.eye(7)[:5], weights=torch.ones(5), labels=("",) * 5),
            "5 different sounds are needed",
        ),
    ],
)
def test_a_wrong_request_is_named(bank: SoundBank, wrong: SoundRequest, message: str):
    with pytest.raises(InputError, match=message):
        bank.generate([wrong], 1.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_length_that_is_none_is_refused(bank: SoundBank, seconds: float):
    with pytest.raises(InputError, match=r"seconds is .*, needs more than 0"):
        bank.generate([WANTED], seconds)


def test_mixes_have_no_clicks(tmp_path: Path):
    """The steepest sample of a mix is that of its sounds at their gains: no joint adds one."""
    for label, frequency in (("a", 300.0), ("b", 900.0)):
        (tmp_path / "in" / label).mkdir(parents=True)
        (tmp_path / "in" / label / "x.wav").write_bytes(sound_file(sine(frequency, 2.3)))
    build_bank(str(tmp_path / "in"), str(tmp_path / "bank"), Bands(), progress=False)
    bank = SoundBank(str(tmp_path / "bank"), Bands())
    sources = Bands().encode([sine(300.0, 1.0), sine(900.0, 1.0)])
    wanted = SoundRequest("x", sources.mean(dim=0), sources, torch.ones(2), ("a", "b"), 0)
    (made,) = bank.generate([wanted], 10.0)
    tones = [2 * np.pi * frequency / RATE * amplitude(made.waveform, frequency) for frequency in (300.0, 900.0)]
    assert np.abs(np.diff(made.waveform)).max() < 1.7 * sum(tones)


def test_a_sound_that_is_near_to_everything_is_not_the_nearest_once_that_is_known(folder: Path):
    """Predictions lie near "middle"; the one that leans to "high" means that, unless it was heard itself."""
    bank = SoundBank(str(folder), Bands())
    middle, high, low = embedded("middle", "high", "low")
    leaning = normalize(middle, dim=0) + 0.6 * normalize(high, dim=0)
    wanted = SoundRequest("x", leaning, leaning[None], torch.ones(1), ("thing",), 0)
    assert labels_of(bank.generate([wanted], 1.0)[0].details) == ["middle"]
    bank.calibrate(torch.stack([normalize(middle, dim=0) + 0.3 * normalize(each, dim=0) for each in (high, low)]))
    assert labels_of(bank.generate([wanted], 1.0)[0].details) == ["high"]
    assert labels_of(bank.generate([replace(wanted, heard=(True,))], 1.0)[0].details) == ["middle"]
    assert bank.generate([wanted], 1.0)[0].details["sounds"][0]["similarity"] == pytest.approx(
        float(torch.cosine_similarity(leaning, high, dim=0)), abs=0.02
    )


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (torch.ones(2, 3), r"are \[2, 3\]; this bank needs"),
        (torch.ones(0, Bands.width), r"are \[0, "),
        (torch.zeros(1, Bands.width), "a zero vector"),
        (torch.full((1, Bands.width), torch.nan), "not finite"),
    ],
)
def test_expected_embeddings_are_checked(folder: Path, expected: Tensor, message: str):
    with pytest.raises(InputError, match=message):
        SoundBank(str(folder), Bands()).calibrate(expected)


def test_a_further_attempt_plays_the_next_nearest_sounds(bank: SoundBank):
    first = request("low", "high")
    played = [labels_of(bank.generate([replace(first, attempt=n)], 1.0)[0].details) for n in range(2)]
    assert played[0] == ["low", "high"]
    assert sorted(played[1]) == ["middle", "noise"]
    with pytest.raises(InputError, match="6 different sounds are needed, those that were rejected"):
        bank.generate([replace(first, attempt=2)], 1.0)
