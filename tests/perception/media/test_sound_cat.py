import struct

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.files import load_audio, read_media
from lightning_ss2a.perception.media.sound_cat import NEW_FORMAT, SoundCat
from tests.perception.media_files import result_or_error, sine, sound_file

SOUNDS = {'"Cow". By Jane. License: CC0.': sound_file(sine(300)), "größe": sound_file(sine(500, 0.2)), "": b"RIFF"}


def cat_file(sounds: dict[str, bytes], mark: int = NEW_FORMAT) -> bytes:
    """A file as OpenTTD's catcodec writes it: the table, then name, WAV file and file name of each sound."""
    table, body, start = b"", b"", 8 * len(sounds)
    for name, content in sounds.items():
        text, file = name.encode() + b"\0", b"src/wav/a.wav\0"
        table += struct.pack("<2I", start + len(body) | mark, len(content))
        body += bytes([len(text)]) + text + content + bytes([len(file)]) + file
    return table + body


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "sounds.cat"
    path.write_bytes(cat_file(SOUNDS))
    return path


def test_names_and_sounds_come_back(archive):
    assert {sound.name: sound.content for sound in SoundCat(archive).sounds} == SOUNDS


def test_a_sound_is_read_by_its_number_from_0(archive):
    content = read_media(archive.parent, "sounds.cat!1")
    assert content == SOUNDS["größe"]
    assert len(load_audio(content, "x", 16_000)) == 3200


@pytest.mark.parametrize("number", ["3", "-1", "1.0", "", "cow", "²"])
def test_a_sound_that_is_not_there(archive, number):
    with pytest.raises(InputError, match=r"sounds\.cat: holds no sound '.*', only 0 to 2"):
        read_media(archive.parent, f"sounds.cat!{number}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read as a sound archive"),
        (b"hello world, hello", "not a sound archive of OpenTTD with named WAV files"),
        (cat_file(SOUNDS, mark=0), "not a sound archive of OpenTTD with named WAV files"),
        (struct.pack("<2I", 12 | NEW_FORMAT, 4) + bytes(9), "not a sound archive of OpenTTD with named WAV files"),
        (struct.pack("<2I", 8 | NEW_FORMAT, 4) + b"\x02a\0OggS", "sound 0 is cut off, or not a WAV file"),
        (struct.pack("<4I", 16 | NEW_FORMAT, 4, 99 | NEW_FORMAT, 4) + b"\x02a\0RIFF", "sound 1 is cut off"),
    ],
    ids=["empty", "text", "first version", "half an entry", "no WAV", "position behind the end"],
)
def test_what_is_no_archive(tmp_path, data, message):
    (tmp_path / "x.cat").write_bytes(data)
    with pytest.raises(InputError, match=rf"x\.cat: .*{message}"):
        SoundCat(tmp_path / "x.cat")


def test_an_archive_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"x\.cat: cannot be read as a sound archive of OpenTTD \(No such file"):
        read_media(tmp_path, "x.cat!0")


def test_an_archive_cut_anywhere_but_behind_its_last_sound_is_refused(tmp_path):
    whole = cat_file(SOUNDS)
    end = len(whole) - len(b"\x0esrc/wav/a.wav\0")
    for size in [*range(40), *range(40, end, 997), end - 1]:
        (tmp_path / "x.cat").write_bytes(whole[:size])
        archive, message = result_or_error(SoundCat, tmp_path / "x.cat")
        assert archive is None, size
        assert "x.cat: " in message
    (tmp_path / "x.cat").write_bytes(whole[:end])
    assert len(SoundCat(tmp_path / "x.cat").sounds) == 3
