"""One option of one callback of a configuration's list, from the command line."""

from pathlib import Path

import pytest

from lightning_ss2a.cli.lightning import build_cli
from tests.cli.test_lightning import command, error_of, folder, printed_config  # noqa: F401  (a fixture)


def callbacks_of(config: dict) -> dict[str, dict]:
    listed = config["trainer"]["callbacks"]
    return {entry["class_path"].rpartition(".")[2]: entry.get("init_args", {}) for entry in listed}


@pytest.mark.parametrize(
    "written",
    [["--trainer.callbacks.EMATeacher.decay=0.5"], ["--trainer.callbacks.EMATeacher.init_args.decay", "0.5"]],
)
def test_an_option_changes_and_nothing_else(folder: Path, capsys, written: list[str]):  # noqa: F811
    before, after = (callbacks_of(printed_config(command("fit", *args), capsys)) for args in ([], written))
    assert list(after) == list(before)
    assert after["EMATeacher"] == before["EMATeacher"] | {"decay": 0.5}
    assert {name: options for name, options in after.items() if name != "EMATeacher"} == {
        name: options for name, options in before.items() if name != "EMATeacher"
    }


def test_several_options_the_last_wins_and_false_takes_out(folder: Path):  # noqa: F811
    options = ["--trainer.callbacks.EMATeacher.decay=0.5", "--trainer.callbacks.EMATeacher.teacher_epochs=3"]
    options += ["--trainer.callbacks.EMATeacher.decay=0.25", "--trainer.callbacks.PairFilter=false"]
    cli = build_cli(command("fit", *options)[1:], run=False)
    named = {type(callback).__name__: callback for callback in cli.trainer.callbacks}
    assert "PairFilter" not in named
    assert (named["EMATeacher"].decay, named["EMATeacher"].teacher_epochs) == (0.25, 3)
    assert "RunSummary" in named


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("EMATeacher.decy=0.5", "EMATeacher.decy: no such option; did you mean decay?"),
        ("EMATeacher.decay=much", "decay: Expected a float. Got value: much"),
        ("EMATeacher.decay=2", "EMATeacher.decay must be in [0, 1], found 2"),
        ("EMATeacher.decay", "EMATeacher.decay: expected one value"),
        ("EMATeacher.decay=", "EMATeacher.decay=: expected one value"),
        ("EMATeacher.decay=null", "EMATeacher.decay: null is no value that it takes"),
        ("EMATeache.decay=1", "EMATeache: the configuration lists no such callback; did you mean EMATeacher?"),
        ("Unheard.of=1", "Unheard: the configuration lists no such callback; it lists ModelCheckpoint, "),
        ("ModelCheckpoint.monitor=x", "ModelCheckpoint: the configuration lists 2 of them; edit it there"),
        ("PairFilter=true", "PairFilter=True: false takes it out; options are .OPTION=VALUE"),
        ("Throughput.x=1", "Throughput.x: no such option"),
    ],
)
def test_what_is_wrong_is_one_short_line(folder: Path, capsys, written: str, message: str):  # noqa: F811
    line = error_of(command("fit", f"--trainer.callbacks.{written}"), capsys)
    assert message in line
    assert len(line) < 300
