"""`ss2a shards compose`: its options reach the builder, and what is missing is said."""

from pathlib import Path

import pytest
import yaml

from lightning_ss2a.builders import build_pairs
from lightning_ss2a.cli.ss2a import main
from lightning_ss2a.data import Manifest
from lightning_ss2a.data.tools.validate import validate_dataset
from tests.perception.media_files import Loudness, MeanColour, picture_file, plain_picture, sine, sound_file

LITE = Path(__file__).parents[2] / "configs" / "perception" / "lite.yaml"
ENCODERS = """
image_encoder: tests.perception.media_files.MeanColour
audio_encoder: tests.perception.media_files.Loudness
image_views: 2
audio_views: 2
"""


def run(arguments: list[str], capsys) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["shards", "compose", *arguments])
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch) -> Path:
    """A folder of eight pairs, its data set of pairs, and a file of encoders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo").mkdir()
    for row in range(8):
        (tmp_path / "zoo" / f"{row}.png").write_bytes(picture_file(plain_picture((20 * row, 0, 9))))
        (tmp_path / "zoo" / f"{row}.wav").write_bytes(sound_file(sine(300 + 50 * row, 0.3)))
    build_pairs("zoo", "pairs", MeanColour(), Loudness(), image_views=2, folds=2, progress=False)
    (tmp_path / "encoders.yaml").write_text(ENCODERS)
    return tmp_path


@pytest.mark.parametrize(("kind", "fields"), [("scenes", "sources"), ("videos", "frames")])
def test_compose(zoo, capsys, kind, fields):
    options = [f"--kind={kind}", "--pairs_dataset=pairs", "--rows=2", "--max_sources=2", "--licence=CC0"]
    status, out, error = run(["zoo", "out", "-c", "encoders.yaml", *options], capsys)
    assert (status, error) == (0, "")  # no progress bar where there is no terminal
    assert f"out: 4 {kind} (fold0 2, fold1 2) with " in out
    assert "What each row is made of: out/compositions.csv" in out
    manifest = Manifest.load(zoo / "out")
    assert (manifest.kind, manifest.licence) == (kind, "CC0")
    assert fields in manifest.fields
    assert validate_dataset(zoo / "out") == []


def test_the_shipped_encoders_serve(capsys):
    status, out, _ = run(["pairs.csv", "out", "-c", str(LITE), "--kind=videos", "--print_config"], capsys)
    printed = yaml.safe_load(out)
    assert status == 0
    assert printed["image_encoder"]["class_path"].endswith("EfficientNetLite")
    assert (printed["kind"], printed["image_views"], printed["rows"]) == ("videos", 8, 160)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "image_encoder is missing: name both encoders"),
        (["-c", "encoders.yaml"], "pairs_dataset is missing: name the data set that was built from this list"),
        (["-c", "encoders.yaml", "--pairs_dataset=none"], "none/manifest.json: missing"),
        (["-c", "encoders.yaml", "--pairs_dataset=pairs"], "groups with annotated pairs, too few for 40 sources"),
        (["--kind=pairs"], "kind"),
    ],
)
def test_what_cannot_be_composed(zoo, capsys, arguments, message):
    status, out, error = run(["zoo", "out", "--max_sources=40", *arguments], capsys)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not (zoo / "out").exists()
