"""`ss2a bank build`: a user's own sounds become a bank by one command."""

from pathlib import Path

import pytest

from lightning_ss2a.builders.sound_bank import read_bank
from lightning_ss2a.cli.ss2a import main
from tests.bank_examples import make_sounds

LITE = Path(__file__).parents[2] / "configs" / "perception" / "lite.yaml"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["bank", "build", *arguments])
    return int(exit_.value.code or 0)


def test_a_folder_of_sounds_becomes_a_bank(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_sounds(tmp_path / "sounds", seconds=1.0)
    arguments = [str(tmp_path / "sounds"), str(tmp_path / "bank"), "-c", str(LITE), "--audio_views=2"]
    assert run(*arguments) == 0
    assert "4 sounds, 4 labels" in capsys.readouterr().out
    assert read_bank(tmp_path / "bank").embeddings.shape == (4, 2, 1024)
    assert run(*arguments) == 2
    assert "holds a finished bank" in capsys.readouterr().err


def test_what_is_missing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(tmp_path), str(tmp_path / "bank")) == 2
    assert (
        "audio_encoder is missing: name it, for example with -c configs/perception/lite.yaml" in capsys.readouterr().err
    )
    assert run(str(tmp_path), str(tmp_path / "bank"), "-c", str(LITE)) == 2
    assert "holds no labelled sounds" in capsys.readouterr().err
