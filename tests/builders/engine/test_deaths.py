"""Items whose decoder ends the process that reads them: counted, tried once more, then left out."""

import os
from pathlib import Path

import pytest

from lightning_ss2a.builders.engine.deaths import FATAL, Deaths
from lightning_ss2a.errors import InputError

DEATH = RuntimeError(f"DataLoader worker (pid {os.getpid()}) is killed by signal: Segmentation fault. ")
SEVERAL = RuntimeError(f"DataLoader worker (pid(s) 1, {os.getpid()}) exited unexpectedly")


def test_an_item_is_fatal_once_it_has_ended_two_processes(tmp_path: Path):
    deaths = Deaths(tmp_path / "deaths")
    assert deaths.fatal() == {}
    for number, error in enumerate((DEATH, SEVERAL), start=1):
        deaths.note_work("fine.json")
        deaths.note_work("deadly.json")
        deaths.count(error, devices=1)
        assert Deaths(tmp_path / "deaths").fatal() == ({} if number == 1 else {"deadly.json": FATAL})


def test_what_is_no_death_of_an_item_is_raised(tmp_path: Path):
    deaths = Deaths(tmp_path)
    for error in (RuntimeError("out of luck"), DEATH):  # of a worker that was reading nothing
        with pytest.raises(RuntimeError) as raised:
            deaths.count(error, devices=1)
        assert raised.value is error
    deaths.note_work("a")
    deaths.forget_work()
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        deaths.count(DEATH, devices=1)
    assert deaths.fatal() == {}


def test_beside_other_devices_a_death_ends_the_call_and_counts(tmp_path: Path):
    for _ in range(2):
        Deaths(tmp_path).note_work("a")
        with pytest.raises(
            InputError, match="run the same command again: it goes on, and leaves out what is fatal twice"
        ):
            Deaths(tmp_path).count(DEATH, devices=2)
    assert Deaths(tmp_path).fatal() == {"a": FATAL}
