"""Whole commands on the demo, in processes of their own, as a user types them."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lightning_ss2a.data import Manifest, ShardReader
from lightning_ss2a.training import ManifoldModule
from tests.processes import SECONDS, run_command

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "shards" / "demo"
CONFIG = ROOT / "configs" / "manifold.yaml"
ENVIRONMENT = os.environ | {
    "HF_HUB_OFFLINE": "1",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "COLUMNS": "200",
}


def shell(command: str, folder: Path) -> str:
    """What a pasted line prints."""
    options = {"shell": True, "capture_output": True, "text": True, "check": False, "timeout": SECONDS}
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def run_line(command: str, folder: Path, status: int = 0) -> str:
    """The same, without a shell and without the seconds that imports take."""
    return run_command(command, folder, ENVIRONMENT, status)


def table(printed: str) -> dict[str, list[str]]:
    """Cells of a printed table by the first of each line."""
    rows = [line.strip("│").split("│") for line in printed.splitlines() if line.startswith("│")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose name needs quotes, with the repository's shards at their place."""
    folder = tmp_path_factory.mktemp("my work")
    (folder / "shards").symlink_to(ROOT / "shards")
    return folder


@pytest.fixture(scope="module")
def fit(folder: Path) -> str:
    """What `lightning fit` prints for four epochs with two validations."""
    short = "--trainer.max_epochs 4 --trainer.check_val_every_n_epoch 2"
    save = "--trainer.logger.save_dir='my runs'"
    return shell(f"lightning fit -c {CONFIG} {short} {save}", folder)


def printed_command(printed: str, verb: str) -> str:
    (line,) = [line for line in printed.splitlines() if f"lightning {verb} " in line]
    return line[line.index("lightning") :]


def test_fit_ends_with_a_table_a_checkpoint_and_commands(folder: Path, fit: str):
    rows = table(fit)
    assert {"ssms", "clip_score", "reconstruction_cosine", "modality_gap", "recall@5/visual_to_audio"} <= rows.keys()
    assert not any("baseline" in name or "train" in name for name in rows)
    assert rows["recall@5/visual_to_audio"][3] == f"{5 / 34:.3f}"  # chance, of the 34 groups of fold 0
    assert rows["median_rank/visual_to_audio"][3] == f"{(34 + 1) / 2:.3f}"
    assert {row[2] for row in rows.values()} <= {"1", "3"}  # the epochs with a validation
    run = folder / "my runs" / "manifold" / "version_0"
    assert sorted(file.name for file in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (run / "config.yaml").exists()


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_evaluation_of_the_best_checkpoint_gives_its_validation_again(folder: Path, fit: str, verb):
    printed = run_line(printed_command(fit, "test").replace("lightning test", f"lightning {verb}"), folder)
    rows = table(printed)
    assert "_baseline/" not in printed  # Lightning's own table would list baselines as metrics
    assert rows["ssms"][0] == table(fit)["ssms"][1]  # fold 0 is validated and tested on
    assert rows["ssms"][1:] == table(fit)["ssms"][3:]


def test_predict_writes_the_projections_of_every_row(folder: Path, fit: str):
    printed = run_line(printed_command(fit, "predict"), folder)
    inspect = re.search(r"ss2a shards inspect .*", printed)[0]
    rows = table(run_line(inspect, folder))
    assert [rows[f"fold{n}"][0] for n in range(5)] == ["128", "131", "63", "89", "116"]
    written = shlex.split(inspect)[-1]
    best = folder / "my runs" / "manifold" / "version_0" / "checkpoints" / "best.ckpt"
    manifold = ManifoldModule.load_from_checkpoint(best, map_location="cpu").eval().manifold
    ours = ShardReader(folder / written).read_split("fold3")
    theirs = ShardReader(DEMO).read_split("fold3")
    assert ours["key"].tolist() == theirs["key"].tolist()
    with torch.no_grad():
        visual = manifold.project_visual(torch.from_numpy(theirs["visual"]).float().mean(1)).mean
        audio = manifold.project_audio(torch.from_numpy(theirs["audio"]).float().mean(1)).mean
    for name, expected in (("visual", visual), ("audio", audio)):
        assert torch.allclose(torch.from_numpy(ours[name]).float(), expected, rtol=2e-3, atol=2e-3)
    manifest = Manifest.load(folder / written)
    assert manifest.folds == Manifest.load(DEMO).folds
    assert manifest.fields["visual"].encoder.startswith("cmss:best.ckpt:")


def test_bad_input_leaves_no_run_behind(tmp_path: Path):
    printed = run_line(f"lightning fit -c {CONFIG} --data.datasets=nowhere", tmp_path, status=2)
    assert "nowhere/manifest.json: missing" in printed
    assert not list(tmp_path.iterdir())


def start_long_run(folder: Path, *options: str) -> subprocess.Popen:
    """A run without end, in a process group of its own; returns when it has saved a checkpoint."""
    (folder / "shards").symlink_to(ROOT / "shards")
    command = ["lightning", "fit", "-c", str(CONFIG), "--trainer.max_epochs=100000", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, start_new_session=True, **pipes)
    for _ in range(600):
        if list(folder.glob("runs/manifold/version_0/checkpoints/last.ckpt")):
            return process
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("no checkpoint after a minute")


TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "number", "whole_group"),
    [((), signal.SIGINT, True), ((), signal.SIGTERM, False), (TWO, signal.SIGINT, True), (TWO, signal.SIGTERM, False)],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C, two processes", "SIGTERM to the first of two"],
)
def test_a_signal_leaves_a_checkpoint_and_the_command_to_go_on(tmp_path: Path, options, number, whole_group):
    process = start_long_run(tmp_path, *options)
    try:
        (os.killpg if whole_group else os.kill)(process.pid, number)
        printed, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    path = tmp_path / "runs" / "manifold" / "version_0" / "checkpoints" / "interrupted.ckpt"
    state = torch.load(path, weights_only=True)
    command = printed_command(printed, "fit")
    assert command.endswith(str(path.relative_to(tmp_path)))
    epochs = state["epoch"] + 3
    again = shell(f"{command} --trainer.max_epochs={epochs}", tmp_path)
    assert f"max_epochs={epochs}` reached" in again
    last = torch.load(tmp_path / "runs" / "manifold" / "version_1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] <= 2 * epochs  # two steps an epoch


@pytest.mark.slow
def test_two_processes_measure_and_predict_what_one_does(folder: Path, fit: str):
    two = " ".join(TWO)
    one_line = printed_command(fit, "predict")
    outputs = []
    for options in ("", two):
        printed = shell(f"{one_line} {options} --data.evaluation_batch_size=50", folder)
        outputs.append(folder / shlex.split(re.search(r"ss2a shards inspect .*", printed)[0])[-1])
        outputs[-1] = ShardReader(outputs[-1])
    for split in outputs[0].manifest.splits:
        one, other = (reader.read_split(split) for reader in outputs)
        assert one["key"].tolist() == other["key"].tolist()
        assert (one["visual"] == other["visual"]).all()
    line = printed_command(fit, "test")
    assert table(shell(f"{line} {two} --data.evaluation_batch_size=7", folder)) == table(shell(line, folder))
