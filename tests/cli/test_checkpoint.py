"""`ss2a checkpoint import|export`: arguments, what is printed, and refusals."""

from pathlib import Path

import pytest

from lightning_ss2a.cli.ss2a import main
from lightning_ss2a.training import RemixerModule
from tests.training.test_published import write_released


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["checkpoint", *arguments])
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


def test_released_weights_to_checkpoints_to_a_folder_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    released, output = write_released(tmp_path), tmp_path / "out"
    given = [released["weights"], "--config", released["config"], "--output", str(output)]
    status, out, _ = run(["import", *given], capsys)
    assert (status, out.split()) == (0, [str(output / "manifold.ckpt"), str(output / "remixer.ckpt")])
    status, out, _ = run(["import", *given, "--aggregator", released["aggregator"]], capsys)
    assert (status, out.split()[-1]) == (0, str(output / "temporal_aggregation.ckpt"))
    status, out, _ = run(["export", str(output / "remixer.ckpt"), str(tmp_path / "hub"), "--licence=other"], capsys)
    assert status == 0
    assert "numbers; read README.md before sharing it" in out
    status, out, _ = run(["import", str(tmp_path / "hub"), "--output", str(tmp_path / "back")], capsys)
    assert (status, out.strip()) == (0, str(tmp_path / "back" / "remixer.ckpt"))
    assert RemixerModule.load_from_checkpoint(tmp_path / "back" / "remixer.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "ssv2a.pth", "--config", "ssv2a.json"], "output is missing: name a folder for the checkpoints"),
        (["import", "ssv2a.pth", "--output", "out"], "config is missing: name one file, the authors' configuration"),
        (["import", "ssv2a.pth", "-c", "a", "-c", "b", "--output=out"], "config is missing: name one file"),
        (["import", "ssv2a.pth", "-c", "a", "--output=out"], "source ssv2a.pth: no such file"),
        (["import", ".", "-c", "a", "--output=out"], "a folder has its options in itself; leave config"),
        (["export", "nowhere.ckpt", "out"], "checkpoint nowhere.ckpt: no such file"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    status, out, error = run(arguments, capsys)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["import", "export"])
def test_help_explains_every_option(capsys: pytest.CaptureFixture[str], verb: str):
    status, out, _ = run([verb, "--help"], capsys)
    assert status == 0
    assert "unknown" not in out
