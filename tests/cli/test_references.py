"""``ss2a references``, and the three commands that make a protocol."""

import csv
import json
import shlex
from pathlib import Path

import pytest
import yaml

from lightning_ss2a.cli.arguments import files_first
from lightning_ss2a.cli.ss2a import build_parser
from tests.cli.test_evaluate import small_protocol
from tests.cli.test_ss2a import run
from tests.generation.small_world import save_checkpoints, save_picture, save_sound

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "datasets"
THINGS = {
    "aaaaaaaaaaa": ("dog",),
    "_bbbbbbbbbb": ("car",),
    "-cccccccccc": ("dog", "car"),
    "ddddddddddd": ("car", "dog"),
}
"""What is to be seen in each video, all of it annotated."""


def write_vggss(folder: Path) -> str:
    """Pictures and sounds of clips, one of which is gone."""
    folder.mkdir()
    entries = []
    for number, (name, things) in enumerate(THINGS.items()):
        save_picture(folder / f"{name}_000010.png", *things)
        save_sound(folder / f"{name}_000010.wav", number, seconds=1.0, amplitude=0.1 * (number + 1))
        boxes = [[(10 + 60 * place) / 200, 0.2, (60 + 60 * place) / 200, 0.6] for place in range(len(things))]
        entries.append({"file": f"{name}_000010", "class": things[0], "bbox": boxes})
    entries.append({"file": "goneggggggg_000010", "class": "dog", "bbox": [[0, 0, 1, 1]]})
    (folder / "vggss.json").write_text(json.dumps(entries))
    return str(folder)


def write_stack(folder: Path) -> str:
    """A configuration of small models, and an untrained Remixer."""
    parts = {"image_encoder": "Eye", "audio_encoder": "Ear", "detector": "BoxDetector", "text_encoder": "Letters"}
    options: dict[str, object] = {
        name: {"class_path": f"tests.generation.small_stack.{part}"} for name, part in parts.items()
    }
    generator = {"class_path": "tests.generation.tone_generator.ToneGenerator"}
    options["generator"] = generator | {"init_args": {"width": 8, "audio_encoder": "ear"}}
    options["remixer"] = save_checkpoints(folder)["remixer"]
    options["trainer"] = {"accelerator": "cpu", "devices": 1, "num_workers": 0}
    (folder / "stack.yaml").write_text(yaml.safe_dump(options))
    return str(folder / "stack.yaml")


def test_references_generate_evaluate(capsys, tmp_path: Path):
    source, output = write_vggss(tmp_path / "vggss"), str(tmp_path / "references")
    cut = ["references", source, output, "-c", str(CONFIGS / "vggss.yaml"), "--splits", "[test]", "--workers", "0"]
    status, out, error = run(cut, capsys)
    assert (status, error) == (0, "")
    assert out.splitlines()[0] == (
        f"{output}: 4 items made; left out: 1 missing; lists: pairs.csv 4, single.csv 2, multi.csv 2"
    )
    assert json.loads((tmp_path / "references" / "references.json").read_text())["provenance"].startswith("VGG-SS")
    made = str(tmp_path / "ours")
    sound = ["generate", "--items", f"{output}/items.csv", "--output", made, "-c", write_stack(tmp_path)]
    status, out, error = run([*sound, "--seconds", "1"], capsys)
    assert (status, out, error) == (0, f"{made}: 4 made\n", "")
    for part in ("single", "multi"):
        measure = ["evaluate", "--generated", f"OURS={made}", "--reference", f"{output}/sounds", "--images", output]
        measure += ["--pairs", f"{output}/{part}.csv", "--output", str(tmp_path / part), "-c", small_protocol(tmp_path)]
        status, _, error = run([*measure, "--cache", str(tmp_path / "cache")], capsys)
        assert (status, error) == (0, "")
        scores = json.loads((tmp_path / part / "scores.json").read_text())["scores"]
        assert {score["measure"] for score in scores} == {"FAD", "SSMS"}
        with (tmp_path / part / "items.csv").open() as file:
            names = {row["item"] for row in csv.DictReader(file)}
        assert names == {
            f"{name}_000010" for name, things in THINGS.items() if len(things) == (1 if part == "single" else 2)
        }


def commands_of(protocol: Path) -> list[list[str]]:
    """The commands in a protocol's comments."""
    comments = [line[1:].strip() for line in protocol.read_text().splitlines() if line.startswith("#")]
    lines = "\n".join(comments).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("ss2a ")]


@pytest.mark.parametrize("name", ["avsync15", "demo", "imagehear", "music", "vggsound", "vggss"])
def test_the_commands_of_every_protocol_follow_one_another(monkeypatch, name):
    """They are understood, and each takes what the one before it makes."""
    monkeypatch.chdir(ROOT)
    commands = commands_of(ROOT / "configs" / "evaluation" / f"{name}.yaml")
    assert [command[0] for command in commands[:3]] == ["references", "generate", "evaluate"]
    parsed = [build_parser().parse_args(files_first(command, {command[0]})) for command in commands]
    cut, sound, *measured = (options[options.noun] for options in parsed)
    assert sound.as_dict()["items"] == f"{cut.output}/items.csv"
    for measure in measured:
        assert measure.generated == [f"OURS={sound.output}"]
        assert measure.images == cut.output
        assert measure.reference in (f"{cut.output}/sounds", None)
        assert measure.videos == (f"{cut.output}/videos" if cut.videos else None)
    lists = [Path(measure.pairs).name for measure in measured]
    assert lists == (["single.csv", "multi.csv"] if len(lists) == 2 else ["pairs.csv"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--splits", "[tset]"], "has no split 'tset'; did you mean test?"),
        (["--sample_rate", "10"], "sample_rate is 10, needs 1000 to 768000"),
        (["--workers", "-1"], "workers must be at least 0"),
        (["--exclude", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--vidoes"], "videos"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(capsys, tmp_path: Path, changed, message):
    source = write_vggss(tmp_path / "vggss")
    arguments = ["references", source, str(tmp_path / "out"), "-c", str(CONFIGS / "vggss.yaml"), *changed]
    status, out, error = run(arguments, capsys)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_an_output_among_the_media_is_refused(capsys, tmp_path: Path):
    source = write_vggss(tmp_path / "vggss")
    status, _, error = run(["references", source, f"{source}/out", "-c", str(CONFIGS / "vggss.yaml")], capsys)
    assert status == 2
    assert "is inside" in error


def test_help_explains_every_option(capsys):
    status, out, _ = run(["references", "--help"], capsys)
    assert status == 0
    blocks = out.partition("options:")[2].split("\n  -")
    undescribed = [block.split()[0] for block in blocks[1:] if len(block.split("(type:")[0].split()) < 3]
    assert undescribed == []
