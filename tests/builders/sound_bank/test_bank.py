"""What is written is read again; what is damaged is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lightning_ss2a.builders.sound_bank import BankSound, build_bank, read_bank
from lightning_ss2a.builders.sound_bank import build as build_module
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media.files import load_audio
from tests.bank_examples import TONES, Bands, make_sounds, noise
from tests.perception.media_files import sine, sound_file


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    build_bank(str(make_sounds(tmp_path / "sounds")), str(tmp_path / "bank"), Bands(), audio_views=2, progress=False)
    return tmp_path / "bank"


def test_a_bank_holds_what_was_listed(bank: Path):
    found = read_bank(bank)
    assert [sound.label for sound in found.sounds] == ["noise", "high", "low", "middle"]
    assert found.embeddings.shape == (4, 2, Bands.width)
    assert found.description.audio_encoder == "bands"
    for sound, embedding in zip(found.sounds, found.embeddings, strict=True):
        waveform = found.waveform(sound)
        assert len(waveform) == 3 * 32_000
        heard = load_audio((bank / sound.file).read_bytes(), sound.file, Bands.sample_rate)
        np.testing.assert_allclose(embedding[0], Bands().encode([heard])[0], atol=2e-3)
        if sound.label in TONES:
            spectrum = np.abs(np.fft.rfft(waveform))
            assert spectrum.argmax() / 3 == pytest.approx(TONES[sound.label], abs=1)


def test_a_bank_built_again_is_the_same(bank: Path, tmp_path: Path):
    build_bank(str(tmp_path / "sounds"), str(tmp_path / "again"), Bands(), audio_views=2, progress=False)
    files = sorted(path.relative_to(bank) for path in bank.rglob("*") if path.is_file())
    assert [(tmp_path / "again" / file).read_bytes() for file in files] == [
        (bank / file).read_bytes() for file in files
    ]
    assert sorted(path.name for path in bank.iterdir()) == [
        "bank.json",
        "embeddings.safetensors",
        "sounds",
        "sounds.csv",
    ]


def test_its_own_list_and_sounds_make_the_bank_again(bank: Path, tmp_path: Path):
    build_bank(str(bank / "sounds.csv"), str(tmp_path / "copy"), Bands(), progress=False)
    assert [sound.label for sound in read_bank(tmp_path / "copy").sounds] == ["noise", "high", "low", "middle"]


def test_a_long_sound_is_cut_to_its_loudest_stretch(tmp_path: Path):
    (tmp_path / "in").mkdir()
    waveform = np.concatenate([noise(3.0, peak=0.01), sine(440, 2.0), noise(3.0, peak=0.01)])
    (tmp_path / "in" / "a.wav").write_bytes(sound_file(waveform))
    report = build_bank(str(tmp_path / "in"), str(tmp_path / "bank"), Bands(), longest=2.0, progress=False)
    found = read_bank(tmp_path / "bank")
    cut = found.waveform(found.sounds[0])
    assert report.seconds == pytest.approx(2.0)
    assert len(cut) == 64_000
    assert np.sqrt(np.mean(cut**2)) > 0.3
    assert abs(cut[0]) < 0.02


def test_the_same_sound_under_two_names_is_taken_once(tmp_path: Path):
    sounds = make_sounds(tmp_path / "sounds")
    (sounds / "again.wav").write_bytes((sounds / "noise.wav").read_bytes())
    assert build_bank(str(sounds), str(tmp_path / "bank"), Bands(), progress=False).sounds == 4


def test_credits_are_kept(tmp_path: Path):
    make_sounds(tmp_path)
    row = 'noise.wav,hiss,"Me, and you",CC0-1.0,my recorder,7,fold2'
    (tmp_path / "list.csv").write_text(f"file,label,author,licence,source,group,split\n{row}\n")
    build_bank(str(tmp_path / "list.csv"), str(tmp_path / "bank"), Bands(), progress=False)
    (sound,) = read_bank(tmp_path / "bank").sounds
    assert sound == BankSound(sound.file, "hiss", "Me, and you", "CC0-1.0", "my recorder", "7", "fold2")


def test_sounds_that_cannot_be_used_stop_the_build_or_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    sounds = make_sounds(tmp_path / "sounds")
    (sounds / "silent.wav").write_bytes(sound_file(np.zeros(16_000, np.float32)))
    arguments = str(sounds), str(tmp_path / "bank"), Bands()
    with pytest.raises(InputError, match=r"1 of 5 sounds cannot be used .* mend them, or leave them out with skip_bad"):
        build_bank(*arguments, progress=False)
    assert "the sound is silent" in caplog.text
    assert not (tmp_path / "bank").exists()
    report = build_bank(*arguments, skip_bad=True, progress=False)
    assert (report.sounds, len(report.problems)) == (4, 1)


def test_what_nobody_hears_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build_module, "loudness", lambda *_: -np.inf)
    with pytest.raises(InputError, match=r"noise\.wav: nothing in the sound can be heard"):
        build_bank(str(make_sounds(tmp_path / "sounds")), str(tmp_path / "bank"), Bands(), progress=False)


def test_a_bank_is_not_replaced_unless_that_is_said(bank: Path, tmp_path: Path):
    (bank / "LICENSE").write_text("mine")
    before = (bank / "bank.json").read_bytes()
    arguments = str(tmp_path / "sounds" / "low"), str(bank), Bands()
    with pytest.raises(InputError, match="holds a finished bank; choose another folder, or overwrite it"):
        build_bank(*arguments, progress=False)
    assert (bank / "bank.json").read_bytes() == before
    build_bank(*arguments, overwrite=True, progress=False)
    assert [sound.label for sound in read_bank(bank).sounds] == ["tone"]
    assert len(list((bank / "sounds").iterdir())) == 1
    assert (bank / "LICENSE").read_text() == "mine"


def test_files_of_others_are_not_replaced(tmp_path: Path):
    sounds = make_sounds(tmp_path / "sounds")
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "sounds.csv").write_text("mine")
    with pytest.raises(InputError, match=r"sounds.csv: is of no bank of ours"):
        build_bank(str(sounds), str(tmp_path / "bank"), Bands(), overwrite=True, progress=False)


def test_a_build_that_fails_leaves_the_bank_as_it_was(bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_module, "write_bank", full)
    with pytest.raises(OSError, match="No space left"):
        build_bank(str(tmp_path / "sounds" / "low"), str(bank), Bands(), overwrite=True, progress=False)
    assert len(read_bank(bank).sounds) == 4
    assert sorted(path.name for path in bank.iterdir()) == [
        "bank.json",
        "embeddings.safetensors",
        "sounds",
        "sounds.csv",
    ]


def change_json(**changes: object) -> Callable[[Path], None]:
    def change(bank: Path) -> None:
        content = json.loads((bank / "bank.json").read_text())
        (bank / "bank.json").write_text(json.dumps({**content, **changes}))

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda bank: (bank / name).write_bytes(content) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bank: (bank / "bank.json").unlink(), r"not a sound bank \(no bank.json\)"),
        (write("bank.json", b"{"), "bank.json: not valid JSON"),
        (write("bank.json", b"[]"), "bank.json: format_version None, this program reads 1"),
        (change_json(format_version=2), "format_version 2, this program reads 1"),
        (change_json(colour="red"), "bank.json: unknown key colour"),
        (change_json(sha256={}), "bank.json: sha256 lacks sounds.csv"),
        (write("sounds.csv", b"file,label\n"), "sounds.csv: another sha256 than bank.json says"),
        (lambda bank: (bank / "embeddings.safetensors").unlink(), "embeddings.safetensors: cannot be read"),
        (lambda bank: next((bank / "sounds").glob("low-*")).unlink(), r"row 4: sounds/low-\w+.ogg is missing"),
    ],
)
def test_a_damaged_bank_is_refused_by_name(damage: Callable[[Path], None], message: str, bank: Path):
    damage(bank)
    with pytest.raises(InputError, match=message) as error:
        read_bank(bank)
    assert "\n" not in str(error.value)


def resealed(bank: Path, name: str, content: bytes) -> None:
    """Replaces a file and its sha256."""
    import hashlib

    (bank / name).write_bytes(content)
    described = json.loads((bank / "bank.json").read_text())
    described["sha256"][name] = hashlib.sha256(content).hexdigest()
    (bank / "bank.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((3, 2, 7), np.float16), r"embeddings is \[3, 2, 7\], needs \[4 sounds, views, width\]"),
        (np.ones((4, 7), np.float16), r"embeddings is \[4, 7\]"),
        (
            np.full((4, 2, 7), np.nan, np.float32),
            "row 0: embeddings holds zeros only, or numbers not finite",
        ),
        (np.zeros((4, 2, 7), np.float32), "row 0: embeddings holds zeros only"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(embeddings: np.ndarray, message: str, bank: Path):
    resealed(bank, "embeddings.safetensors", safetensors.numpy.save({"embeddings": embeddings}))
    with pytest.raises(InputError, match=message):
        read_bank(bank)


@pytest.mark.parametrize("file", ["../outside.ogg", "sounds/../bank.json", "/etc/passwd", "sounds/unlisted.ogg"])
def test_files_outside_the_bank_are_refused(file: str, bank: Path):
    resealed(bank, "sounds.csv", f"file,label\n{file},dog\n".encode())
    with pytest.raises(InputError, match=r"row 2: .* is not a file that bank.json lists below sounds/"):
        read_bank(bank)


def test_a_sound_that_changed_is_refused_when_it_is_played(bank: Path):
    found = read_bank(bank)
    (bank / found.sounds[0].file).write_bytes(b"other")
    with pytest.raises(InputError, match=r"sounds/noise-\w+.ogg: another sha256"):
        found.waveform(found.sounds[0])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"longest": 0.0}, "longest must be at least 0.1"),
        ({"quality": 2.0}, r"quality must be in \[0, 1\]"),
        ({"audio_views": 0}, "audio_views must be at least 1"),
        ({"sample_rate": 10}, "sample_rate must be in"),
    ],
)
def test_impossible_options_are_named(option: dict, message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        build_bank(str(make_sounds(tmp_path / "s")), str(tmp_path / "b"), Bands(), progress=False, **option)
