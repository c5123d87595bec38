"""`ss2a shards simulate`: options, what it prints, and that the other verbs take what it makes."""

from pathlib import Path

import pytest
import yaml

from lightning_ss2a.cli.ss2a import main
from lightning_ss2a.data import Manifest
from lightning_ss2a.data.simulation.truth import read_truth

SMALL = ["--num_classes=12", "--world.visual.width=24", "--world.audio.width=16", "--world.instance_width=4"]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    with pytest.raises(SystemExit) as exit_:
        main(["shards", *arguments])
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


@pytest.mark.parametrize("kind", ["pairs", "scenes", "videos"])
def test_what_is_simulated_is_valid(tmp_path: Path, capsys, kind):
    folder, sources = str(tmp_path / "world"), ["--world.scene_sources=3"]
    options = [f"--kind={kind}", "--splits={train: 90, validation: 20}", "--seed=3", *SMALL, *sources]
    status, out, error = run(capsys, "simulate", folder, *options)
    assert (status, error) == (0, "")  # the progress bar is for terminals
    assert f"110 simulated {kind} (train 90, validation 20), 12 classes" in out
    assert run(capsys, "validate", folder)[:2] == (0, f"{folder}: good\n")
    assert "simulated-clap" in run(capsys, "inspect", folder)[1]
    assert Manifest.load(folder).fields["audio"].width == 16


def test_origins_and_mismatch(tmp_path: Path, capsys):
    folder = str(tmp_path / "world")
    options = ["--splits={train: 50}", "--pair_origins={curated: 1}", "--mismatch={curated: 1}"]
    assert run(capsys, "simulate", folder, *options, *SMALL)[0] == 0
    assert read_truth(folder, "train")["mismatched"].all()


def test_a_terminal_sees_how_far_it_is(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for progress, shown in (("true", True), ("false", False)):
        options = ["--splits={train: 50}", f"--progress={progress}", *SMALL]
        error = run(capsys, "simulate", str(tmp_path / progress), *options)[2]
        assert ("train rows" in error) == shown


def test_help_tells_what_data_sets_share(capsys):
    out = " ".join(run(capsys, "simulate", "--help")[1].split())
    assert "Splits of one name hold the same pictures, keys and groups" in out
    assert "independent ones need other names" in out


def test_a_configuration_holds_every_number_of_the_world(tmp_path: Path, capsys):
    out = run(capsys, "simulate", "world", *SMALL, "--world.gap=0.7", "--print_config")[1]
    world = yaml.safe_load(out)["world"]
    assert (world["gap"], world["visual"]["width"], world["visual"]["cone"]) == (0.7, 24, 0.47)
    (tmp_path / "world.yaml").write_text(out)
    again = run(capsys, "simulate", "world", "-c", str(tmp_path / "world.yaml"), "--print_config")[1]
    assert yaml.safe_load(again)["world"] == world


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--world.size_power=400", "world.size_power is 400.0, needs 0 to 20"),
        ("--world.gap=3", "world.gap is 3.0; with these cones it can be"),
        ("--splits={train: none}", "splits"),
        ("--kind=movies", "kind"),
        ("--clases=3", "did you mean"),
    ],
)
def test_what_cannot_be_simulated(tmp_path: Path, capsys, option, message):
    status, _, error = run(capsys, "simulate", str(tmp_path / "world"), option)
    assert (status, error.count("\n")) == (2, 1)
    assert message in error
    assert not (tmp_path / "world").exists()
