from pathlib import Path

import pytest

from lightning_ss2a.builders.sound_bank.bank import BankSound
from lightning_ss2a.builders.sound_bank.listing import list_sounds
from lightning_ss2a.errors import InputError


def test_in_a_folder_the_folder_is_the_label(tmp_path: Path):
    for name in ("big_dog/a.wav", "animals/cat/b.ogg", "rain_on_tin.flac", "notes.txt", ".hidden/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = {sound.about.file: sound.about.label for sound in list_sounds(tmp_path)}
    assert found == {"animals/cat/b.ogg": "cat", "big_dog/a.wav": "big dog", "rain_on_tin.flac": "rain on tin"}


def test_a_list_may_say_who_made_a_sound(tmp_path: Path):
    listing = tmp_path / "sounds.csv"
    listing.write_text("file,label,licence,split,mood\na.wav,dog,CC0,fold1,glad\nb.wav,cat,,,\n")
    first, second = list_sounds(listing)
    assert first.about == BankSound("a.wav", "dog", licence="CC0", split="fold1")
    assert second.about == BankSound("b.wav", "cat")
    assert second.place == f"{listing} row 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,author\na.wav,me\n", "no column 'label'"),
        ("file,label\na.wav,\n", "row 2: column label is empty"),
        ("file,label\na.wav,dog\na.wav,cat\n", "row 3: the same file as .* row 2; remove one of them"),
        ("file,label\n", "holds no labelled sounds"),
    ],
)
def test_a_wrong_list_is_refused(text: str, message: str, tmp_path: Path):
    (tmp_path / "sounds.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        list_sounds(tmp_path / "sounds.csv")


def test_an_empty_folder_holds_none(tmp_path: Path):
    with pytest.raises(InputError, match="holds no labelled sounds"):
        list_sounds(tmp_path)
