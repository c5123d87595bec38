"""A worker: whatever happens in a task is an answer, and the process is as it was before."""

import dataclasses
import errno
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.running.messages import (
    Alive,
    CheckTask,
    CommandTask,
    ConfigTask,
    Done,
    Failed,
    Progress,
    Ready,
    RunTask,
)
from lightning_ss2a.sweeps.running.worker import Worker, run_other_rank
from tests.limits import largest_file


class Line:
    """A connection whose other side has said everything already."""

    def __init__(self, *received: Any) -> None:
        self.received, self.sent = list(received), []

    def recv(self) -> Any:
        if not self.received:
            raise EOFError
        return self.received.pop(0)

    def send(self, message: Any) -> None:
        self.sent.append(message)


class Builder:
    """Stands for the command line; keeps its calls."""

    def __init__(self, logged: dict[str, float] | None = None, do: Any = None) -> None:
        self.logged, self.do, self.calls = logged or {}, do, []

    def __call__(self, arguments: Any, run: bool = True, callbacks: Any = ()) -> Any:
        self.calls.append((list(arguments), run, list(callbacks)))
        if self.do is not None:
            self.do(callbacks)
        metrics = {name: torch.tensor(value) for name, value in self.logged.items()}
        return SimpleNamespace(trainer=SimpleNamespace(callback_metrics=metrics))


def answer(task: Any, do: Any = None, logged: dict[str, float] | None = None, line: Line | None = None) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, descriptor in (("stdout", 1), ("stderr", 2)):  # as in a process that pytest does not listen to
            patch.setattr(sys, name, open(descriptor, "w", closefd=False, errors="backslashreplace"))  # noqa: SIM115
        return Worker(Builder(logged, do), lambda arguments: None, line or Line()).answer(task)


@pytest.fixture
def task(tmp_path: Path) -> RunTask:
    return RunTask(("fit", "--x=1"), str(tmp_path / "run" / "output.log"))


def test_a_run_answers_with_what_it_logged(task: RunTask):
    done = answer(task, logged={"val/x": 1.5, "train/loss": 0.25})
    assert done.value == {"val/x": 1.5, "train/loss": 0.25}
    assert done.seconds > 0
    assert not done.pruned
    assert not done.is_spent


def test_all_output_of_a_run_goes_to_its_file(task: RunTask):
    def talk(callbacks: Any) -> None:
        print("from Python")
        print("a warning", file=sys.stderr)
        subprocess.run(["echo", "from a child"], check=True)

    answer(task, talk)
    answer(task, talk)  # an attempt that goes on does not wipe the first
    assert Path(task.log).read_text().count("from a child") == 2
    assert {"from Python", "a warning"} <= set(Path(task.log).read_text().splitlines())


def test_a_process_is_left_as_it_was(task: RunTask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KEPT", "1")
    before = dict(os.environ), list(sys.argv), torch.get_num_threads(), signal.getsignal(signal.SIGTERM)

    def make_a_mess(callbacks: Any) -> None:
        os.environ["PL_GLOBAL_SEED"] = "3"
        del os.environ["KEPT"]
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.use_deterministic_algorithms(True)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise RuntimeError

    answer(task, make_a_mess)
    after = dict(os.environ), list(sys.argv), torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    assert before == after
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("error", "reason", "is_final"),
    [
        (InputError("no such file"), "no such file", True),
        (ValueError("width\n is 3"), "ValueError: width is 3", True),
        (KeyError("x"), "KeyError: 'x'", True),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero", True),
        (MemoryError(), "MemoryError: ", False),
        (torch.OutOfMemoryError("CUDA out of memory."), "OutOfMemoryError: CUDA out of memory.", False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "RuntimeError: DefaultCPUAllocator: can't", False),
        (ValueError("std::bad_alloc: out of memory"), "ValueError: std::bad_alloc: out of memory", False),
        (OSError("disk"), "OSError: disk", False),
        (SystemExit(3), "the run ended with status 3", False),
        (KeyboardInterrupt(), "KeyboardInterrupt: ", False),
    ],
)
def test_whatever_a_run_raises_is_an_answer(task: RunTask, error, reason, is_final):
    def fail(callbacks: Any) -> None:
        raise error

    failed = answer(task, fail)
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)
    assert failed.is_final == is_final
    assert "Traceback" in Path(task.log).read_text()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "x.ckpt"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENAMETOOLONG, "File name too long"),
        InputError("x.ckpt: cannot be written: Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc] file write failed: No space left on device"),
    ],
)
def test_what_is_not_the_run_s_fault(task: RunTask, error: Exception):
    def fail(callbacks: Any) -> None:
        try:
            raise error
        except type(error) as cause:
            raise ValueError("could not save") from cause

    for do in (fail, functools.partial(fail_with, error)):
        failed = answer(task, do)
        assert failed.is_outside
        assert not failed.is_final
    assert not answer(task, functools.partial(fail_with, OSError("disk"))).is_outside


def fail_with(error: Exception, callbacks: Any) -> None:
    raise error


def test_a_log_that_cannot_be_written(task: RunTask, tmp_path: Path):
    def talk(callbacks: Any) -> None:
        print("x" * 2000)

    def talk_and_fail(callbacks: Any) -> None:
        talk(callbacks)
        raise ValueError("wrong width")

    with largest_file(1000):
        assert answer(task, talk, {"val/x": 1.0}).value == {"val/x": 1.0}  # a shorter log is no reason to lose a run
        assert answer(task, talk_and_fail).reason == "ValueError: wrong width"
    (tmp_path / "file").touch()
    failed = answer(dataclasses.replace(task, log=str(tmp_path / "file" / "output.log")))
    assert failed.reason.startswith("FileExistsError: [Errno 17]")
    failed = answer(dataclasses.replace(task, log=str(tmp_path / ("x" * 300) / "output.log")))
    assert failed.is_outside
    assert "File name too long" in failed.reason


def test_a_reason_can_be_written_wherever_it_came_from(task: RunTask):
    failed = answer(task, functools.partial(fail_with, ValueError(f"no file {os.fsdecode(b'caf' + bytes([0xE9]))}")))
    assert failed.reason == "ValueError: no file caf\\udce9"


def test_a_run_says_that_it_moves_on_but_not_at_each_batch(tmp_path: Path):
    line = Line()

    def train(callbacks: Any) -> None:
        (callback,) = callbacks
        for _ in range(100):
            callback.on_train_batch_end(None, None, None, None, 0)

    answer(RunTask(("fit",), str(tmp_path / "log")), train, line=line)
    assert line.sent == [Alive()]


def test_reasons_are_not_without_end(task: RunTask):
    def fail(callbacks: Any) -> None:
        raise RuntimeError("x" * 10_000)

    assert len(answer(task, fail).reason) < 600


def test_other_ranks_find_the_task(task: RunTask, tmp_path: Path):
    seen = []
    worker = Worker(Builder(do=lambda callbacks: seen.append(list(sys.argv[1:]))), lambda arguments: None, Line())
    worker.answer(task)
    assert seen == [[str(tmp_path / "run" / "task.json")]]
    other = Builder()
    run_other_rank(seen[0][0], other)
    ((arguments, run, (callback,)),) = other.calls
    assert (tuple(arguments), run) == (task.arguments, True)
    assert callback._ask is None  # it has no one to ask


def test_a_validation_is_reported_and_the_sweep_s_word_heard(tmp_path: Path):
    task = RunTask(("fit",), str(tmp_path / "log"), reported="val/x")
    line = Line(False, True)

    def validate(callbacks: Any) -> None:
        (callback,) = callbacks
        assert [callback._ask(1, 0.5), callback._ask(2, 0.25)] == [False, True]

    answer(task, validate, line=line)
    assert line.sent == [Progress(1, 0.5), Progress(2, 0.25)]


def test_a_check_builds_all_and_runs_the_first(tmp_path: Path):
    builder = Builder({"val/x": 1.0, "train/loss": 2.0})
    task = CheckTask("fit", (("--x=1",), ("--x=2",)), str(tmp_path / "log"))
    done = Worker(builder, lambda arguments: None, Line()).answer(task)
    assert done.value == ["train/loss", "val/x"]
    assert [(arguments, run) for arguments, run, _ in builder.calls] == [
        (["--x=1"], False),
        (["--x=2"], False),
        (["fit", "--x=1", "--trainer.fast_dev_run=1"], True),
    ]


def test_a_check_of_an_evaluation_runs_the_first_alone(tmp_path: Path):
    builder = Builder()
    task = CheckTask("test", (("--x=1",), ("--x=2",)), str(tmp_path / "log"))
    Worker(builder, lambda arguments: None, Line()).answer(task)
    assert [arguments[0] for arguments, _, _ in builder.calls] == ["test"]


def test_commands_and_configurations(tmp_path: Path):
    builder, others = Builder(do=lambda callbacks: print("seed: 0")), []
    worker = Worker(builder, others.append, Line())
    assert worker.answer(CommandTask(("ss2a", "shards", "pack"), str(tmp_path / "a"))).value is None
    worker.answer(CommandTask(("lightning", "fit", "-c", "x.yaml"), str(tmp_path / "b")))
    assert others == [["shards", "pack"]]
    assert worker.answer(ConfigTask(("fit", "--x=1"))).value == "seed: 0\n"
    assert [arguments for arguments, _, _ in builder.calls] == [
        ["fit", "-c", "x.yaml"], ["fit", "--x=1", "--print_config"]
    ]  # fmt: skip


def test_a_worker_says_that_it_is_ready_and_serves_until_the_sweep_ends(task: RunTask):
    line, before = Line(task, task), signal.getsignal(signal.SIGINT)
    try:
        Worker(Builder({"val/x": 1.0}), lambda arguments: None, line).serve()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert line.sent[0] == Ready()
    assert [message.value for message in line.sent[1:]] == [{"val/x": 1.0}] * 2
    assert all(isinstance(message, Done) for message in line.sent[1:])


def test_a_worker_and_its_children_end_with_the_sweep():
    read_end, write_end = os.pipe()
    code = (
        "import subprocess, time; from lightning_ss2a.sweeps.running.worker import end_with;"
        f"end_with({read_end}); child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command, pass_fds=[read_end], stdout=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    os.close(read_end)
    child = int(process.stdout.readline())
    os.close(write_end)
    assert process.wait(20) == -signal.SIGKILL
    process.stdout.close()
    for _ in range(50):
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the child is still there")
