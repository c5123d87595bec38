"""What a sweep leaves for people."""

import io
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import FolderLock
from lightning_ss2a.sweeps.reporting.results import best_trial, write_results
from lightning_ss2a.sweeps.running.messages import Answer, Done, Failed, RunTask, Task
from tests.limits import largest_file
from tests.sweeps.running.coordinators import make_coordinator, make_sweep


def test_files_of_a_sweep_that_has_ended(tmp_path: Path):
    coordinator, _ = make_coordinator(make_sweep(tmp_path, folder=f"{tmp_path}/my sweeps"))
    coordinator.run()
    printed = io.StringIO()
    lock = FolderLock(coordinator.sweep.root)  # another sweep of this study writes its results
    threading.Timer(0.5, lock.release).start()
    begun = time.monotonic()
    write_results(coordinator, Console(file=printed))
    assert time.monotonic() - begun > 0.5
    root = coordinator.sweep.root
    assert {"best.yaml", "trials.csv", "trials.md", "runs.csv", "board", "figures"} <= {p.name for p in root.iterdir()}
    first, second = (root / "best.yaml").read_text().splitlines()
    assert first == "# Trial 2 of the sweep s: val/x 30 (one run)."
    assert second == f"fit -c {tmp_path}/base.yaml --seed_everything=0 --model.x=3"
    assert f"lightning fit -c '{root}/best.yaml'" in printed.getvalue()
    assert f"tensorboard --logdir '{root}'" in printed.getvalue()


def test_reasons_are_written_where_no_trial_is_complete(tmp_path: Path):
    def work(task: Task) -> list[Answer]:
        return [Failed("no luck", is_final=True)] if isinstance(task, RunTask) else [Done(["val/x"])]

    coordinator, _ = make_coordinator(make_sweep(tmp_path), work)
    coordinator.run()
    printed = io.StringIO()
    write_results(coordinator, Console(file=printed))
    root = coordinator.sweep.root
    assert (root / "trials.csv").read_text().count("no luck") == len(coordinator.queue.records())
    assert not (root / "best.yaml").exists()
    assert f"reasons: {root}/trials.csv" in printed.getvalue()


def test_results_that_cannot_be_written_are_told_with_their_file(tmp_path: Path):
    coordinator, _ = make_coordinator(make_sweep(tmp_path))
    coordinator.run()
    root = coordinator.sweep.root
    write_results(coordinator, Console(file=io.StringIO()))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name in ("trials.csv", "figures", "best.yaml"):
        path = root / name
        path.rename(root / "aside")
        path.mkdir() if path.suffix else path.touch()
        with pytest.raises(InputError, match=rf"{root}/{name}.*; not all results are written: mend it"):
            write_results(coordinator, Console(file=io.StringIO()))
        path.rmdir() if path.suffix else path.unlink()
        (root / "aside").rename(path)
    with largest_file(10), pytest.raises(InputError, match=f"{root}.*File too large"):
        write_results(coordinator, Console(file=io.StringIO()))
    kept = {path: content for path, content in before.items() if "board" not in path.parts}
    assert {path: path.read_bytes() for path in kept} == kept
    assert not list(root.rglob("*.tmp"))


def test_the_best_of_several_objectives_is_the_first_s(tmp_path: Path):
    sweep = make_sweep(tmp_path, metric=["val/x", "val/y"], direction="maximize")
    coordinator, _ = make_coordinator(sweep)
    coordinator.run()
    assert best_trial(coordinator.queue.records(), sweep).number == 2
    assert best_trial([], sweep) is None
