"""Worker processes: started when needed, replaced when they die, none left behind."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.running.messages import CommandTask, Done, Failed, Progress
from lightning_ss2a.sweeps.running.pool import MOST_STARTS, WorkerPool

WORKER = """
import os, signal, subprocess, sys, time
from multiprocessing.connection import Connection
from lightning_ss2a.sweeps.running.messages import Alive, Done, Failed, Progress, Ready

if os.environ.get("BROKEN"):
    sys.exit("no GPU here")
line = Connection(int(sys.argv[1]))
line.send(Ready())
while True:
    word = line.recv().arguments[0]
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "exit":
        os._exit(3)
    if word == "slow exit":
        line.close()
        time.sleep(1)
        os._exit(3)
    if word == "child":
        child = subprocess.Popen(["sleep", "60"])
        line.send(Alive())
        line.send(Progress(child.pid, 0.0))
        time.sleep(60)
    if word == "sleep":
        time.sleep(60)
    if word == "ask":
        line.send(Progress(1, 0.5))
        line.send(Done(line.recv(), pruned=True))
    elif word == "fail":
        line.send(Failed("wrong", True))
    else:
        seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_NAME")}
        line.send(Done({"pid": os.getpid(), "arguments": sys.argv[3:], **seen}, is_spent=word == "spent"))
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes pools whose workers are the small program above."""
    (tmp_path / "small_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made: list[WorkerPool] = []

    def make_pool(workers: int = 1, gpus: int = 0) -> WorkerPool:
        made.append(WorkerPool(workers, 2, gpus, tmp_path / "logs", module="small_worker"))
        return made[-1]

    yield make_pool
    for pool in made:
        pool.stop()


def task(word: str) -> CommandTask:
    return CommandTask((word,), "log")


def answers(pool: WorkerPool, number: int = 1) -> dict[int, Any]:
    found: dict[int, Any] = {}
    until = time.monotonic() + 240
    while len(found) < number:
        assert time.monotonic() < until
        found |= dict(pool.wait(0.1))
    return found


def is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_is_used_again(make: Any):
    pool = make()
    first, second = pool.call(task("do")).value, pool.call(task("do")).value
    assert first["pid"] == second["pid"]
    assert first["arguments"] == ["2", "1"]  # threads, workers
    assert first["OMP_NUM_THREADS"] == "2"
    assert first["SLURM_JOB_NAME"] == "interactive"  # for Lightning: a trial alone is no task of a job
    assert is_there(first["pid"])
    pool.stop()
    assert not is_there(first["pid"])


def test_a_process_that_is_spent_is_replaced(make: Any):
    pool = make()
    first, second = (pool.call(task(word)).value["pid"] for word in ("spent", "do"))
    assert first != second
    assert not is_there(first)


def test_workers_work_at_the_same_time(make: Any):
    pool = make(workers=2)
    assert pool.idle == [0, 1]
    for number in (0, 1):
        pool.give(number, task("do"))
    assert pool.idle == []
    found = answers(pool, 2)
    assert found[0].value["pid"] != found[1].value["pid"]
    assert pool.idle == [0, 1]


def test_a_validation_is_answered(make: Any):
    pool = make()
    pool.give(0, task("ask"))
    assert answers(pool)[0] == Progress(1, 0.5)
    assert pool.idle == []
    pool.reply(0, True)
    assert answers(pool)[0] == Done(True, pruned=True)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("killed", "its process died (signal 9, as the system does where memory ends)"),
        ("exit", "its process died (status 3)"),
        ("slow exit", "its process died (status 3)"),
    ],
)
def test_a_worker_that_dies_is_replaced_however_often(make: Any, word, reason):
    pool = make()
    for _ in range(MOST_STARTS + 3):
        pool.give(0, task(word))
        assert answers(pool) == {0: Failed(reason, is_final=False)}
    assert pool.call(task("do")).value["pid"]


def test_a_worker_that_dies_between_tasks(make: Any):
    pool = make()
    os.kill(pool.call(task("do")).value["pid"], signal.SIGKILL)
    time.sleep(0.2)
    pool.give(0, task("do"))
    assert isinstance(answers(pool)[0], Failed)
    assert isinstance(pool.call(task("do")), Done)


def test_workers_that_cannot_start(make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("BROKEN", "1")
    pool = make()
    reasons = []
    for _ in range(MOST_STARTS + 1):
        pool.give(0, task("do"))
        try:
            reasons.append(answers(pool)[0].reason)
        except InputError as error:
            reasons.append(str(error))
    assert reasons[:-1] == ["its process died (status 1)"] * MOST_STARTS
    log = tmp_path / "logs" / "worker_0.log"
    assert reasons[-1] == f"worker processes die before they are ready (status 1); see {log}"
    assert "no GPU here" in log.read_text()


def test_a_call_that_fails(make: Any):
    with pytest.raises(InputError, match=r"^wrong$"):
        make().call(task("fail"))


def test_stopping_ends_workers_that_are_busy(make: Any):
    pool = make()
    process = pool.call(task("do")).value["pid"]
    pool.give(0, task("sleep"))
    pool.stop()
    assert not is_there(process)
    assert pool.idle == [0]


def test_a_worker_is_ended_with_its_children_and_replaced(make: Any):
    pool = make()
    pool.give(0, task("child"))
    child = None
    while child is None:
        for _, answer in pool.wait(0.1):
            assert pool.idle == []
            child = answer.step if isinstance(answer, Progress) else None
    pool.end(0)
    assert pool.idle == [0]
    until = time.monotonic() + 60
    while is_there(child):  # killed, but only its parent could wait for it
        assert time.monotonic() < until
        time.sleep(0.01)
    assert pool.call(task("do")).value["pid"]


def test_each_worker_sees_its_gpus(make: Any, monkeypatch: pytest.MonkeyPatch):
    def seen(pool: WorkerPool) -> list[str | None]:
        for number in (0, 1):
            pool.give(number, task("do"))
        found = answers(pool, 2)
        return [found[number].value["CUDA_VISIBLE_DEVICES"] for number in (0, 1)]

    assert seen(make(workers=2)) == [None, None]
    assert seen(make(workers=2, gpus=2)) == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7,9")
    assert seen(make(workers=2, gpus=1)) == ["5", "GPU-7"]
    assert seen(make(workers=2)) == ["5,GPU-7,9"] * 2
    with pytest.raises(InputError, match="need 4, CUDA_VISIBLE_DEVICES names 3"):
        make(workers=2, gpus=2)
