"""The `ss2a` command: parsing, messages, exit statuses."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_ss2a.cli.ss2a import main
from tests.data.shards import write_pairs


def run(arguments: list[str], capsys) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


VERBS = [f"shards {verb}" for verb in ("build", "compose", "pack", "simulate", "inspect", "validate", "demo")]


@pytest.mark.parametrize("verb", [*VERBS, "generate"])
def test_help_of_every_verb_explains_every_option(capsys, verb):
    status, out, _ = run([*verb.split(), "--help"], capsys)
    assert status == 0
    blocks = out.partition("options:")[2].split("\n  -")
    undescribed = [block.split()[0] for block in blocks[1:] if len(block.split("(type:")[0].split()) < 3]
    assert undescribed == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "{shards,models,checkpoint,bank,generate, ...}"),
        (["shards"], "{build,compose,pack,simulate,frames"),
        (["shards", "inspekt", "x"], "'inspect'"),
        (["shards", "inspect"], "dataset"),
        (["shards", "inspect", "nowhere"], "nowhere/manifest.json: missing"),
        (["shards", "inspect", "nowhere", "--width=wide"], "width: Expected a"),
        (["shards", "pack", "a.tar", "out", "--fieldz={}"], "did you mean fields?"),
        (["shards", "pack", "a.tar", "out"], "a.tar: no such file or folder"),
        (["shards", "pack", "README.md", "out"], "fields and encoders are missing"),
        (["shards", "pack", "none/*.tar", "out"], "none/*.tar: no file matches"),
        (["shards", "build", "pairs.csv", "out"], "image_encoder is missing"),
        (["shards", "build", "pairs.csv", "out", "-c", "nowhere.yaml"], "File does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(capsys, arguments, message):
    status, out, error = run(arguments, capsys)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert error.startswith("ss2a: error: ")


def test_a_configuration_file_gives_options_and_the_command_line_wins(capsys, tmp_path: Path):
    (tmp_path / "pack.yaml").write_text("fields: {visual: a.npy}\nencoders: {visual: clip}\nblock_rows: 7\nsplit: test")
    arguments = ["shards", "pack", "-c", str(tmp_path / "pack.yaml"), "a.tar", "out", "--block_rows=9"]
    status, out, _ = run([*arguments, "--print_config"], capsys)
    printed = yaml.safe_load(out)
    assert status == 0
    before = ["shards", "pack", "a.tar", "out", "--block_rows=9", "-c", str(tmp_path / "pack.yaml"), "--print_config"]
    assert run(before, capsys) == (0, out, "")
    assert (printed["split"], printed["block_rows"], printed["fields"]) == ("test", 9, {"visual": "a.npy"})
    (tmp_path / "printed.yaml").write_text(out)
    status, again, _ = run(["shards", "pack", "-c", str(tmp_path / "printed.yaml"), "--print_config"], capsys)
    assert yaml.safe_load(again) == printed


@pytest.mark.parametrize(("damage", "status"), [(False, 0), (True, 1)])
def test_validate_tells_by_its_exit_status(capsys, tmp_path: Path, damage, status):
    dataset = write_pairs(tmp_path / "pairs")
    if damage:
        (shard,) = (tmp_path / "pairs").glob("validation-*.tar")
        shard.write_bytes(shard.read_bytes()[:-2000])
    found, out, _ = run(["shards", "validate", dataset], capsys)
    assert found == status
    assert out.endswith(f"{dataset}: good\n") != damage


def test_the_command_as_it_is_installed(tmp_path: Path):
    dataset = write_pairs(tmp_path / "pairs")
    command = [Path(sys.executable).with_name("ss2a"), "shards", "inspect", dataset]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("│")[1:3] for line in done.stdout.splitlines() if "│" in line]
    assert [" train      ", "  100 "] in rows
    assert [" validation ", "   23 "] in rows


def test_tab_completion_completes_in_a_bash(capsys, tmp_path: Path):
    status, out, _ = run(["--print_completion", "shtab-bash"], capsys)
    assert status == 0
    (tmp_path / "completion.bash").write_text(out)
    script = """
    source completion.bash
    COMP_WORDS=(ss2a "$@"); COMP_CWORD=$#
    $(complete -p ss2a | sed 's/.*-F \\([^ ]*\\).*/\\1/') ss2a "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    for words, expected in ((["shards", "va"], "validate"), (["shards", "pack", "--class_"], "--class_from")):
        shell = ["bash", "-c", script, "bash", *words]
        done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [expected]
