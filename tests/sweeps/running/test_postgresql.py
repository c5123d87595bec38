"""A study in a real PostgreSQL server; skipped where none is installed."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_ss2a.cli.ss2a import main
from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.running import storage
from lightning_ss2a.sweeps.running.storage import open_storage
from tests.sweeps.running.queues import POINTS, fill_and_claim_all, in_processes, opened, slots

SERVER_USER = "postgres"
"""Who runs the server where we are root: it refuses to be."""


def program(name: str) -> str:
    places = [os.environ["PATH"], *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"PostgreSQL is not installed: no {name}")
    return found


def as_server_user(*command: str) -> list[str]:
    if os.getuid() != 0:
        return list(command)
    with contextlib.suppress(KeyError):
        import pwd

        user = pwd.getpwnam(SERVER_USER)
        if shutil.which("setpriv"):
            return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]
    pytest.skip(f"PostgreSQL does not run as root, and there is no user {SERVER_USER} or no setpriv")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A database of a server of our own, reached by a socket in its folder."""
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed")
    initdb, postgres = program("initdb"), program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path may have 107 letters
    data = folder / "data"
    if os.getuid() == 0:
        shutil.chown(folder, SERVER_USER, SERVER_USER)
    quick = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    with open(folder / "log", "wb") as log:
        made = as_server_user(initdb, "-D", str(data), "-U", "sweeper", "-A", "trust", "-N")
        subprocess.run(made, check=True, cwd=folder, stdout=log, stderr=log)
        server = subprocess.Popen(as_server_user(postgres, "-D", str(data), *quick), cwd=folder, stdout=log, stderr=log)
    try:
        _wait_for(server, folder)
        yield f"postgresql+psycopg://sweeper@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for connections to end
        server.wait(30)
        shutil.rmtree(folder)


def _wait_for(server: subprocess.Popen, folder: Path) -> None:
    import psycopg

    for _ in range(300):
        assert server.poll() is None, (folder / "log").read_text()
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(f"host={folder} user=sweeper dbname=postgres"),
        ):
            return
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


@pytest.mark.slow
def test_two_processes_finish_every_slot_once(url: str, tmp_path: Path):
    finished = in_processes(2, fill_and_claim_all, url, tmp_path)
    queue = opened(url, tmp_path)
    assert slots(queue) == list(range(len(POINTS)))
    records = queue.records()
    assert sorted(itertools.chain(*finished)) == [record.number for record in records if record.state == "complete"]
    assert [record.point for record in records] == POINTS


@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("{}")
    Path("sweep.yaml").write_text("{name: s, base: base.yaml, trials: 2, parameters: {a: {choices: [1]}}}")
    with pytest.raises(SystemExit) as exit_:
        main(["sweep", "-c", "sweep.yaml", f"--storage=postgresql+psycopg://me:secret@/db?host={tmp_path}"])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not reachable" in line
    assert "No such file or directory" in line
    assert "secret" not in line
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("psycopg")
    monkeypatch.setattr(storage, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(InputError, match=r"not reachable: .*timeout"):
        open_storage(f"postgresql+psycopg://me@127.0.0.1:{server.getsockname()[1]}/db", tmp_path)
