"""Builds that are killed at random moments, and builds by several processes, against one that was left in peace."""

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from lightning_ss2a.builders.listing import Item
from lightning_ss2a.data import Manifest
from lightning_ss2a.perception.media.video import Clip, PyAVReader
from tests.builders.engine.engine_examples import CPU, RedThings, build, read_rows, stack, write_pairs
from tests.data.shard_examples import read_everything, same_data
from tests.perception.media_files import MeanColour, picture_file, sine
from tests.perception.media_zoo import write_video
from tests.processes import fast_context

KILLS = 20
ITEMS = 300


class Slow(MeanColour):
    """Takes its time, so that there are moments in which a build can be killed."""

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        time.sleep(0.01)
        return super().encode(images)


def run(
    items: list[Item], folder: Path, output: str, environment: dict[str, str], devices: int = 1, workers: int = 0
) -> None:
    os.environ.update(environment)
    models = stack(image_encoder=Slow(), detector=RedThings())
    trainer = replace(CPU, devices=devices, num_workers=workers)
    build(items, folder, models, output, kind="scenes", batch_size=3, trainer=trainer, most_sources=2)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Scenes with one red thing or none; some files are broken."""
    items = write_pairs(tmp_path / "media", ITEMS)
    for i in range(0, ITEMS, 2):
        pixels = np.full((48, 64, 3), (0, 100 + i % 100, 20), np.uint8)
        pixels[8 : 30 + i % 10, 10 : 30 + i % 20] = (255, 0, i % 50)
        (tmp_path / "media" / f"{i}.png").write_bytes(picture_file(pixels))
    for i in range(0, ITEMS, 17):
        (tmp_path / "media" / f"{i}.wav").write_bytes(b"hello")
    run(items, tmp_path / "media", "whole", {})
    return items


def assert_same(one: Path, other: Path) -> None:
    assert same_data(read_everything(one), read_everything(other))
    assert Manifest.load(one) == Manifest.load(other)  # the sha256 of every shard
    for name in ("rejected.csv", "used_ids.txt", "sources.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def kill(arguments: tuple, wait: Callable[[], bool], seconds: float) -> int | None:
    """Kills a build so many seconds after something has come true; gives its exit status."""
    process = fast_context().Process(target=run, args=arguments)
    process.start()
    while not wait() and process.is_alive():
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_a_build_that_is_killed_20_times_gives_the_same_rows(items: list[Item], tmp_path: Path):
    out, chance, done = tmp_path / "out", random.Random(0), [0]
    arguments = (items, tmp_path / "media", "out", {})

    def parts() -> int:
        return len([*out.glob(".build/*.npz")])

    for number in range(KILLS):
        wait = (lambda: True) if number % 4 == 0 else (lambda: parts() > done[-1])  # also while it starts
        status = kill(arguments, wait, chance.uniform(0.0, 0.1))
        assert status == -signal.SIGKILL, "it has ended before it was killed: more items are needed"
        done.append(parts())
    assert len(set(done)) > 10, f"killed in the middle of its work, after {done} parts"
    assert done[-1] < ITEMS // 3
    for _ in range(5):  # while the shards are written
        if kill(arguments, (out / ".writing").exists, chance.uniform(0.0, 0.03)) == 0:
            break
    if not (out / "manifest.json").exists():
        run(*arguments)
    assert_same(tmp_path / "whole", out)


@pytest.mark.slow
def test_two_processes_give_the_same_rows_as_one(items: list[Item], tmp_path: Path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in "01":
        environment = {"LOCAL_RANK": rank, "NODE_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        arguments = (items, tmp_path / "media", "out", environment, 2)
        processes.append(fast_context().Process(target=run, args=arguments))
        processes[-1].start()
    for process in processes:
        process.join(200)
        assert process.exitcode == 0
    assert_same(tmp_path / "whole", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the processes of the system cannot be listed")
def test_workers_end_with_a_build_that_is_killed(items: list[Item], tmp_path: Path):
    mark = {"KILLED_BUILD": str(tmp_path)}

    def alive() -> int:
        return sum(f"KILLED_BUILD={tmp_path}".encode() in environment(path) for path in Path("/proc").glob("[0-9]*"))

    def is_at_work() -> bool:
        return any((tmp_path / "out" / ".build").glob("*.npz"))

    assert kill((items, tmp_path / "media", "out", mark, 1, 2), is_at_work, 0.0) == -signal.SIGKILL
    assert alive() > 0, "its workers are not seen"
    end = time.monotonic() + 20
    while alive() and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive()


def environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # gone, or somebody else's
        return b""


class Deadly(PyAVReader):
    """Some files end the process that reads them; one does so a single time."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.once = folder / "has ended a process"

    def read(self, path: Path, **options: Any) -> Clip:
        once = path.name.startswith("once") and not self.once.exists()
        if once or path.name.startswith("deadly"):
            self.once.touch() if once else None
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().read(path, **options)


@pytest.mark.slow
def test_files_that_end_the_process_that_reads_them_are_told_and_stop_nothing(tmp_path: Path):
    folder, names = tmp_path / "media", ["a.mkv", "deadly.mkv", "b.mkv", "once.mkv", "c.mkv"]
    folder.mkdir()
    for number, name in enumerate(names):
        write_video(folder / name, np.arange(20) / 25, sine(300 + number, 0.8, 44_100))
    items = [Item(name, name, name, "thing", video=name) for name in names]
    build(items, folder, trainer=replace(CPU, num_workers=1), batch_size=2, video_reader=Deadly(tmp_path))
    assert set(read_rows(tmp_path / "out")) == {"a.mkv", "b.mkv", "c.mkv", "once.mkv"}
    assert (
        'deadly.mkv,deadly.mkv,deadly.mkv,"it ended the process that read it, 2 times'
        in (tmp_path / "out" / "rejected.csv").read_text()
    )
