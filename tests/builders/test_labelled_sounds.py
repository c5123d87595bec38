import csv
import re
from collections import defaultdict
from pathlib import Path

import pytest

from lightning_ss2a.builders.labelled_sounds import COLUMNS, SOUND_PACKAGES, read_labelled_sounds
from lightning_ss2a.data import Manifest
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.files import SOUND_SUFFIXES, load_audio, read_media
from lightning_ss2a.perception.media.sound_cat import SoundCat

ROOT = Path(__file__).parents[2]
LISTING, MEDIA = ROOT / "shards" / "demo" / "sounds.csv", ROOT / ".cache" / "demo" / "media"
CAT = "openttd-opensfx/usr/share/games/openttd/baseset/opensfx/opensfx.cat"
SHORT_LICENCES = {
    "Creative Commons Attribution 3.0": "CC BY 3.0",
    "Creative Commons Attribution 3.0 Unported": "CC BY 3.0",
    "Creative Commons Attribution-ShareAlike 3.0 Unported": "CC BY-SA 3.0",
    "Creative Commons Zero 1.0": "CC0 1.0",
}

needs_media = pytest.mark.skipif(
    not all((MEDIA / package.name).exists() for package in SOUND_PACKAGES),
    reason="the packages' media are not in .cache/demo (make demo-shards)",
)


def write_list(folder: Path, *rows: dict[str, str]) -> Path:
    cells = dict.fromkeys(COLUMNS, "") | {"label": "Cow1", "text": "cow", "class": "animal", "author": "Jane"}
    with (folder / "sounds.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(cells | {"licence": "CC0 1.0", "sound": f"farm/{i}.wav"} | row for i, row in enumerate(rows))
    return folder / "sounds.csv"


def test_a_row_becomes_a_sound(tmp_path):
    (sound,) = read_labelled_sounds(write_list(tmp_path, {"sound": "farm/x.cat!3", "group": " cows "}))
    assert (sound.sound, sound.package, sound.label, sound.text) == ("farm/x.cat!3", "farm", "Cow1", "cow")
    assert (sound.class_name, sound.group, sound.credit) == ("animal", "cows", "Jane; CC0 1.0")
    assert sound.place == f"{tmp_path / 'sounds.csv'} row 2"


def test_sounds_that_are_left_out_are_given_apart(tmp_path):
    listing = write_list(tmp_path, {}, {"left_out": "a jingle", "text": "", "class": ""}, {"text": "dog"})
    assert [sound.text for sound in read_labelled_sounds(listing)] == ["cow", "dog"]
    assert [sound.left_out for sound in read_labelled_sounds(listing, left_out=True)] == ["a jingle"]
    assert read_labelled_sounds(listing)[0].group is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": ""}, r"sounds\.csv row 2: column text is empty; fill it, or say in left_out why the sound is"),
        ({"class": ""}, r"sounds\.csv row 2: column class is empty"),
        ({"author": " "}, r"sounds\.csv row 2: column author is empty"),
        ({"licence": ""}, r"sounds\.csv row 2: column licence is empty"),
        ({"sound": "farm/1.wav"}, r"sounds\.csv: lists farm/1\.wav 2 times; keep one row"),
    ],
)
def test_lists_that_are_wrong(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_labelled_sounds(write_list(tmp_path, row, {}))


def test_a_list_without_sounds(tmp_path):
    with pytest.raises(InputError, match=r"sounds\.csv: holds no sounds"):
        read_labelled_sounds(write_list(tmp_path, {"left_out": "a jingle"}))


# The committed list


def test_the_committed_list_is_of_the_three_packages_and_of_the_demos_classes():
    sounds = read_labelled_sounds(LISTING)
    everything = sounds + read_labelled_sounds(LISTING, left_out=True)
    assert (len(everything), len(sounds)) == (197, 135)
    assert {sound.package for sound in sounds} == {package.name for package in SOUND_PACKAGES}
    assert {sound.class_name for sound in sounds} <= set(Manifest.load(LISTING.parent).classes)
    assert not any("NC" in sound.licence or "oncommercial" in sound.licence for sound in everything)


def test_committed_sounds_that_are_cut_from_one_recording_share_a_group():
    originals, groups = defaultdict(list), defaultdict(set)
    for sound in read_labelled_sounds(LISTING):
        for original in re.findall(r"\"([^\"]+\.(?:wav|mp3|flac|aiff?))\"", sound.author):
            originals[original].append(sound.group or sound.sound)
        groups[sound.group].add(sound.class_name)
    assert sum(len(found) > 1 for found in originals.values()) == 4  # of a steam train, a truck, a crash, the wind
    assert all(len(set(found)) == 1 for found in originals.values())
    assert all(len(classes) == 1 for group, classes in groups.items() if group is not None)


@needs_media
def test_the_committed_list_holds_every_sound_of_the_packages():
    listed = {sound.sound for out in (False, True) for sound in read_labelled_sounds(LISTING, left_out=out)}
    found = {f"{CAT}!{number}" for number in range(len(SoundCat(MEDIA / CAT).sounds))}
    for package in SOUND_PACKAGES:
        files = (MEDIA / package.name).rglob("*")
        found |= {str(path.relative_to(MEDIA)) for path in files if path.suffix in SOUND_SUFFIXES}
    assert listed == found


@needs_media
def test_the_committed_credits_are_those_of_the_archive():
    archive = SoundCat(MEDIA / CAT)
    listed = read_labelled_sounds(LISTING) + read_labelled_sounds(LISTING, left_out=True)
    for sound in (sound for sound in listed if sound.sound.startswith(CAT)):
        label, _, rest = archive.sounds[int(sound.sound.partition("!")[2])].name[1:].partition('". ')
        author, _, licence = rest.partition(" License: ")
        assert sound.label == label
        assert sound.author.removesuffix(" (original in the public domain)") == author.rstrip(".")
        assert sound.licence == f"{SHORT_LICENCES[licence.split('. ')[0].rstrip('.')]} (the collection: CC BY-SA 3.0)"


@needs_media
@pytest.mark.slow
def test_every_committed_sound_can_be_heard():
    for sound in read_labelled_sounds(LISTING):
        assert len(load_audio(read_media(MEDIA, sound.sound), sound.sound, 16_000)) > 0
