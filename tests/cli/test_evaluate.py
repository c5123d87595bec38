"""``ss2a evaluate`` as it is called."""

import json
from pathlib import Path

import pytest
import yaml

from lightning_ss2a.cli.ss2a import build_parser
from tests.cli.test_ss2a import run
from tests.evaluation.small_encoder import write_tone

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "evaluation").glob("*.yaml"))


def small_protocol(folder: Path) -> str:
    """Writes a protocol of encoders without weights."""
    options = {
        "encoders": {"small": {"class_path": "tests.evaluation.small_encoder.SmallLabeller"}},
        "measures": {
            "FAD": {"class_path": "lightning_ss2a.evaluation.FAD", "init_args": {"encoder": "small"}},
            "SSMS": {"class_path": "lightning_ss2a.evaluation.SSMS", "init_args": {"encoder": "small", "top_n": 2}},
        },
        "bootstrap": {"resamples": 20, "set_resamples": 3},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(options))
    return str(folder / "small.yaml")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    for folder in ("a", "b", "r"):
        for number in range(3):
            write_tone(tmp_path / folder / f"{number}.wav", 200 * (number + 1), 0.1 * (number + 2))
    others = {"reference": "r", "output": "out", "cache": "cache"}
    options = [text for name, path in others.items() for text in (f"--{name}", str(tmp_path / path))]
    folders = [str(tmp_path / "a"), f"OURS={tmp_path / 'b'}"]
    return ["evaluate", "--generated", *folders, *options, "-c", small_protocol(tmp_path)]


def test_it_measures_prints_and_writes(capsys, tmp_path: Path, arguments):
    status, out, error = run(arguments, capsys)
    assert (status, error) == (0, "")
    assert "OURS" in out
    assert "scores.json" in {path.name for path in (tmp_path / "out").iterdir()}
    document = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert {score["method"]: score["value"] for score in document["scores"] if score["measure"] == "SSMS"} == {
        "a": 10,
        "OURS": 10,
    }
    before = (tmp_path / "out" / "scores.csv").read_bytes()
    assert run(arguments, capsys)[0] == 0
    assert (tmp_path / "out" / "scores.csv").read_bytes() == before


def test_nothing_to_export_for_av_benchmark_is_explained(capsys, tmp_path: Path, arguments):
    status, out, _ = run([*arguments, "--av_benchmark", str(tmp_path / "av")], capsys)
    assert status == 0
    assert "av: 0 files of av-benchmark's; it has none of the protocol's encoders" in out


def test_a_missing_sound_makes_the_exit_status_1(capsys, tmp_path: Path, arguments):
    (tmp_path / "a" / "1.wav").unlink()
    status, out, _ = run(arguments, capsys)
    assert status == 1
    assert "a: 1 missing or unusable" in out
    assert "a,1,is missing in" in (tmp_path / "out" / "problems.csv").read_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--reference", "nowhere"], "reference: no such folder|nowhere: no such folder"),
        (["--measures", "{}"], "measures is empty: name a protocol"),
        (["--batch_size", "0"], "batch_size must be at least 1"),
        (["--bootstrap.resamples", "-1"], "bootstrap.resamples must be at least 0"),
        (["--pairs", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--secnds", "3"], "did you mean seconds"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(capsys, arguments, changed, message):
    status, out, error = run([*arguments, *changed], capsys)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert any(part in error for part in message.split("|"))


def test_help_explains_every_option(capsys):
    status, out, _ = run(["evaluate", "--help"], capsys)
    assert status == 0
    blocks = out.partition("options:")[2].split("\n  -")
    undescribed = [block.split()[0] for block in blocks[1:] if len(block.split("(type:")[0].split()) < 3]
    assert undescribed == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_protocol_is_understood(config: Path):
    options = build_parser().parse_args(["evaluate", "-c", str(config), "--generated", "x"])
    assert options.evaluate.measures
    measures = [measure for measure in options.evaluate.measures.values() if measure is not None]
    used = {measure.init_args.encoder for measure in measures if "encoder" in measure.get("init_args", {})}
    assert used <= set(options.evaluate.encoders)
