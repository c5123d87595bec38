"""Configuration files that a sweep file names."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lightning_ss2a.sweeps.base_files import ConfigFile
from lightning_ss2a.sweeps.definition import Sweep


@pytest.fixture
def parser() -> ArgumentParser:
    """As the command line has it."""
    made = ArgumentParser(exit_on_error=False)
    made.add_argument("-c", action="config")
    made.add_class_arguments(Sweep, as_group=False)
    return made


def test_a_file_is_relative_to_the_one_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser):
    for folder in ("configs/sweeps", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "configs/a.yaml").touch()
    (tmp_path / "configs/sweeps/one.yaml").write_text("{name: s, base: ../a.yaml, metric: [x]}")
    (tmp_path / "elsewhere/two.yaml").write_text(
        "bases: {demo: {configs: [../configs/a.yaml, b.yaml]}, paper: {configs: no/such.yaml}}"
    )
    monkeypatch.chdir(tmp_path / "configs")
    options = parser.parse_args(["-c", "sweeps/one.yaml", "-c", "../elsewhere/two.yaml"])
    bases = parser.instantiate(options).bases
    assert options.base == "../a.yaml"
    assert options.base.path == Path("a.yaml")
    assert [config.path for config in bases["demo"].configs] == [Path("a.yaml"), tmp_path / "elsewhere/b.yaml"]
    assert parser.parse_args(["-c", "sweeps/one.yaml", "--base=b.yaml"]).base.path == Path("b.yaml")
    assert options.base.seen_from(tmp_path / "runs/sweeps/s") == "../../../configs/a.yaml"
    assert ConfigFile("/a/b.yaml").seen_from(tmp_path) == "/a/b.yaml"
