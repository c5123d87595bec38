"""Sounds are asked for together, and again where something is heard that must not be."""

import numpy as np
import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.generation.listening import Tagger, windows_of
from lightning_ss2a.generation.mixing.methods import Mixed, OracleMixer
from lightning_ss2a.generation.protocols import Rendering, SoundGenerator
from lightning_ss2a.generation.scene.labels import LabelMeanings, Unwanted
from lightning_ss2a.generation.sounding import Sounded, Sounder, Wanted, calibrate, keyed_seed
from tests.generation.small_stack import Ear, tone
from tests.generation.tone_generator import ToneGenerator

EAR = Ear()


class SeededTones(ToneGenerator):
    """Sounds one of the ear's tones, chosen by the seed."""

    def _render(self, request, seconds):
        return Rendering(tone(request.seed % 4, seconds=seconds), None, {"tone": request.seed % 4})


def wanted(key: str, seconds: float = 1.0) -> Wanted:
    return Wanted(key, Mixed(torch.ones(8) / 8**0.5, torch.ones(1, 8), torch.ones(1), ("thing",)), seconds)


def tagger(*words: str, threshold: float = 0.5) -> Tagger:
    return Tagger(EAR, Unwanted.of_words(words, LabelMeanings(None)), threshold)


def test_a_generator_of_real_sounds_is_told_what_a_mixer_makes_of_them():
    class Bank(ToneGenerator):
        real_sounds = torch.eye(8)
        expected = None

        def calibrate(self, expected):
            self.expected = expected

    class Doubling(OracleMixer):
        def predict_sounds(self, audio):
            return 2 * audio

    bank = Bank()
    calibrate(bank, Doubling())
    assert torch.equal(bank.expected, 2 * torch.eye(8))
    calibrate(ToneGenerator(), Doubling())  # which has no real sounds


def test_the_generator_of_the_tests_is_one():
    assert isinstance(ToneGenerator(), SoundGenerator)


def test_a_tagger_hears_kinds_of_a_word_even_in_a_part_of_a_sound():
    speech_at_the_end = np.concatenate([tone(2, seconds=8.0), tone(0, seconds=2.0)])
    assert list(tagger("human sounds", "music").hears(speech_at_the_end, 16000)) == ["Speech"]
    assert tagger("music", "animal").hears(speech_at_the_end, 16000) == {}
    assert list(tagger("animal").hears(tone(3, 6), 16000)) == ["Moo", "Dog"]
    resampled = tone(0, sample_rate=48000)
    assert tagger("speech").hears(resampled, 48000)["Speech"] > 0.9


def test_a_tagger_needs_labels():
    class Deaf(Ear):
        def label_head(self):
            return None

    with pytest.raises(InputError, match=r"ear has no label head.*name a tagger"):
        Tagger(Deaf(), Unwanted.of_words(["speech"], LabelMeanings(None)), 0.5)


def test_windows_of_a_sound_cover_it():
    sound = np.arange(35, dtype=np.float32)
    parts = windows_of(sound, 10)
    assert [(part[0], len(part)) for part in parts] == [(0, 20), (10, 20), (15, 20)]
    assert [len(part) for part in windows_of(sound[:7], 10)] == [7]


def test_candidates_are_tried_until_nothing_unwanted_is_heard():
    generator = SeededTones(8, "ear")
    every = [wanted(f"item{i}") for i in range(12)]
    sounder = Sounder(generator, 0, tagger("speech", "music"), candidates=16)
    done = sounder.sound(every)
    assert all(isinstance(each, Sounded) and each.rendering.details["tone"] >= 2 for each in done)
    first = [keyed_seed(0, f"item{i}#0") % 4 for i in range(12)]
    assert [len(each.rejected) > 0 for each in done] == [tone_ < 2 for tone_ in first]
    again = [sounder.sound([each])[0].seed for each in every]
    assert again == [each.seed for each in done]  # whatever the batch
    told = next(each for each in done if each.rejected).described()
    assert set(told["rejected"][0]) == {"seed", "heard"}


def test_when_all_candidates_are_rejected_the_item_says_so():
    sounder = Sounder(SeededTones(8, "ear"), 0, tagger("speech", "music", "rain", "animal"), candidates=3)
    (outcome,) = sounder.sound([wanted("item")])
    assert isinstance(outcome, InputError)
    assert "all 3 candidates are rejected: in the last one" in str(outcome)


def test_without_a_tagger_one_candidate_is_enough_and_lengths_are_kept_apart():
    generator = SeededTones(8, "ear")
    long, short, other = Sounder(generator, 0, None, 9).sound([wanted("a", 2.0), wanted("b", 1.0), wanted("c", 2.0)])
    assert [len(each.rendering.waveform) for each in (long, short, other)] == [32000, 16000, 32000]
    assert len(generator.asked) == 3


def test_one_request_that_fails_leaves_the_others():
    first, second = Sounder(ToneGenerator(8, "ear", fail_on="bad"), 0).sound([wanted("bad"), wanted("good")])
    assert isinstance(first, InputError)
    assert isinstance(second, Sounded)
