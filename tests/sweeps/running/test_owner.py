"""Whether the process that runs a trial is still there."""

import os
import subprocess
import sys
import time

from lightning_ss2a.sweeps.running import owner
from lightning_ss2a.sweeps.running.owner import LOST_AFTER_SECONDS, available_cores, is_lost, this_owner


def test_this_process_is_there():
    assert not is_lost(this_owner(), heartbeat=0.0)


def test_a_process_that_has_ended_is_lost_even_where_its_number_is_taken():
    host, number, began = this_owner().split(" ", 2)
    assert is_lost(f"{host} {number} {began}0", time.time())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = f"{host} {child.pid} {owner._began(child.pid)}"
    assert not is_lost(name, 0.0)
    child.kill()
    time.sleep(0.2)
    assert is_lost(name, time.time())  # not yet waited for: a zombie
    child.wait()
    assert is_lost(name, time.time())


def test_another_machine_s_process_is_lost_after_a_long_silence():
    assert not is_lost("elsewhere 1 boot/1", time.time() - 0.5 * LOST_AFTER_SECONDS)
    assert is_lost("elsewhere 1 boot/1", time.time() - 2 * LOST_AFTER_SECONDS)


def test_names_of_programs_may_hold_blanks_and_parentheses(tmp_path):
    script = tmp_path / "a) b (c"
    script.write_text(f"#!{sys.executable}\ninput()\n")
    script.chmod(0o755)
    child = subprocess.Popen([script], stdin=subprocess.PIPE)
    try:
        began = owner._began(child.pid)
        assert began.rpartition("/")[2].isdigit()
        assert int(began.rpartition("/")[2]) >= int(owner._began(os.getpid()).rpartition("/")[2])
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
