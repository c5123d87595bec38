"""What a user sees when something is wrong: one line, exit status 2, the nearest right name."""

import argparse
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_ss2a.cli.errors import explain, run_reporting_errors
from lightning_ss2a.errors import InputError


def fail_with(error: BaseException, arguments: list[str], capsys) -> tuple[int, str]:
    def call(_: list[str]) -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_reporting_errors("ss2a", call, arguments)
    return exit_.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        InputError("pairs.csv: no rows"),
        MisconfigurationException("No GPU\n  is there"),
        FileNotFoundError(2, "No such file", "x.yaml"),
        PermissionError(13, "Permission denied", "/out"),
    ],
)
def test_bad_input_is_one_line_and_status_2(error, capsys):
    code, printed = fail_with(error, [], capsys)
    assert code == 2
    assert printed.count("\n") == 1
    assert printed.startswith("ss2a: error: ")
    assert " ".join(str(error).split()) in printed


def test_ctrl_c_is_no_traceback(capsys):
    assert fail_with(KeyboardInterrupt(), [], capsys) == (128 + signal.SIGINT, "ss2a: interrupted\n")


@pytest.mark.parametrize("error", [InputError("x"), KeyboardInterrupt()])
def test_debug_shows_the_traceback_and_is_no_argument(error):
    def call(arguments: list[str]) -> None:
        assert arguments == ["inspect"]
        raise error

    with pytest.raises(type(error)):
        run_reporting_errors("ss2a", call, ["inspect", "--debug"])


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [("utf-8", "not\udcff", b"not\\udcff: good"), ("ascii", "box \u2502", b"box \\u2502: good")],
)
def test_names_beyond_the_encoding_of_the_output_are_printed_as_escapes(monkeypatch, encoding, name, shown):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    run_reporting_errors("ss2a", lambda _: print(f"{name}: good", flush=True), [])
    assert written.getvalue().strip() == shown
    assert sys.stdout.errors == "strict"


def run_with_output(output: int | BinaryIO, code: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of ours whose standard output goes there."""
    script = f"from lightning_ss2a.cli.errors import run_reporting_errors\n{code}"
    return subprocess.run([sys.executable, "-c", script], stdout=output, stderr=subprocess.PIPE, text=True)


SAY = "run_reporting_errors('ss2a', lambda _: print('good'), [])"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_named():
    with open("/dev/full", "wb") as full:
        ended = run_with_output(full, SAY)
    assert ended.returncode == 2
    assert ended.stderr == ("ss2a: error: [Errno 28] No space left on device: 'standard output' (traceback: --debug)\n")


def test_a_reader_that_has_read_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        ended = run_with_output(pipe, SAY)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_a_pipe_to_something_else_that_broke_is_not_hidden():
    code = "def call(_): raise BrokenPipeError(32, 'Broken pipe')\nrun_reporting_errors('ss2a', call, [])"
    assert "Traceback" in run_with_output(subprocess.DEVNULL, code).stderr


def test_our_own_mistakes_are_not_hidden():
    def call(_: list[str]) -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        run_reporting_errors("ss2a", call, [])


def test_a_result_is_passed_on():
    assert run_reporting_errors("ss2a", lambda arguments: arguments, ["a", "b"]) == ["a", "b"]


def test_the_file_that_holds_no_mapping_is_named(tmp_path: Path):
    for name, content in (("good.yaml", b"a: 1"), ("broken.yaml", b"a: ["), ("zeros.yaml", b"\0\1")):
        (tmp_path / name).write_bytes(content)
    parser = argparse.ArgumentParser()
    for bad in ("broken.yaml", "zeros.yaml"):
        arguments = ["fit", "-c", str(tmp_path / "good.yaml"), "--config", str(tmp_path / bad)]
        error = argparse.ArgumentError(None, "Problems parsing config:\n  here")
        assert explain(error, parser, arguments) == f"{tmp_path / bad}: Problems parsing config: here"
