"""Whether the process that runs a trial is still there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_ss2a.sweeps.running import owner
from lightning_ss2a.sweeps.running.owner import Watch, available_cores, is_there, this_owner


def test_this_process_is_there():
    assert is_there(this_owner())


def test_a_process_that_has_ended_is_gone_even_where_its_number_is_taken():
    host, place, number, began = this_owner().split(" ")
    assert is_there(f"{host} {place} {number} {began}0") is False
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = f"{host} {place} {child.pid} {owner._began(child.pid)}"
    assert is_there(name)
    child.kill()
    time.sleep(0.2)
    assert is_there(name) is False  # not yet waited for: a zombie
    child.wait()
    assert is_there(name) is False


@pytest.mark.parametrize("name", ["", "one", "host 1 boot/1", "host boot/1 -3 x", "\udc80 a b c d"])
def test_what_names_no_process_of_this_machine_is_not_known(name: str):
    assert is_there(name) is None


def test_a_process_of_an_equal_host_in_another_boot_or_namespace_is_not_known():
    host, place, number, began = this_owner().split(" ")
    boot, _, namespace = place.partition("/")
    assert is_there(f"{host} {boot}/{int(namespace) + 1} {number} {began}") is None
    assert is_there(f"{host} {'0' + boot[1:]}x/{namespace} {number} {began}") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a namespace of process numbers of its own")
def test_a_process_in_a_container_on_the_same_machine_is_not_known(tmp_path: Path):
    code = f"from {owner.__name__} import this_owner; print(this_owner())"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or "unshare" in done.stderr:
        pytest.skip(done.stderr)
    inside = done.stdout.strip()
    assert inside.split(" ")[0] == this_owner().split(" ")[0]
    assert is_there(inside) is None


def test_silence_is_measured_by_one_s_own_clock():
    now = [100.0]
    watch = Watch(lambda: now[0])
    assert watch.silence(3, "a") == 0.0
    now[0] += 50.0
    assert watch.silence(3, "a") == 50.0
    assert not watch.knows(3)
    assert watch.silence(3, "b") == 0.0
    assert watch.knows(3)
    now[0] += 5.0
    assert watch.silence(3, "b") == 5.0


def test_names_of_programs_may_hold_blanks_and_parentheses(tmp_path):
    script = tmp_path / "a) b (c"
    script.write_text(f"#!{sys.executable}\ninput()\n")
    script.chmod(0o755)
    child = subprocess.Popen([script], stdin=subprocess.PIPE)
    try:
        began = owner._began(child.pid)
        assert int(began) >= int(owner._began(os.getpid()))
    finally:
        child.kill()
        child.wait()


def test_cores_are_those_that_the_process_may_use():
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert available_cores() == len(cores)
