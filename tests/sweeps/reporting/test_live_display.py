"""How a sweep stands, while it runs."""

import io
from pathlib import Path

from rich.console import Console

from lightning_ss2a.sweeps.records import Objective, State, TrialRecord
from lightning_ss2a.sweeps.reporting.live_display import Display, best_line, final, summary
from tests.sweeps.running.coordinators import make_coordinator, make_sweep


def record(number: int, state: State, value: float | None = None, follows: int | None = None) -> TrialRecord:
    metrics = {} if value is None else {"seed_0": {"val/x": value}}
    return TrialRecord(number, state, {"model.x": number}, metrics, seconds=60.0, follows=follows)


RECORDS = [
    record(0, "complete", 1.0),
    record(1, "failed"),
    record(2, "complete", 3.0),
    record(3, "pruned"),
    record(4, "running"),
    record(5, "waiting", follows=1),
    record(6, "waiting"),
    record(7, "failed"),
]


def test_the_summary_counts_a_place_once():
    assert summary(RECORDS, 1) == "3 of 7 done, 1 running, 1 pruned, 1 failed, about 2.5 minutes left"
    assert summary(RECORDS, 2).endswith("about 1.5 minutes left")
    assert summary(RECORDS[:1], 2) == "1 of 1 done, 0 running"
    assert summary(RECORDS[4:5], 2) == "0 of 1 done, 1 running"
    assert summary([], 1) == "0 of 0 done, 0 running"
    assert [r.number for r in final(RECORDS)] == [0, 2, 3, 4, 5, 6, 7]


def test_the_best_so_far():
    assert best_line(RECORDS, Objective("val/x")) == "best so far: trial 2, val/x 3 (x 2)"
    assert best_line(RECORDS, Objective("val/x", maximize=False)) == "best so far: trial 0, val/x 1 (x 0)"
    assert best_line(RECORDS, Objective("val/other")) == "no trial is done yet"
    assert best_line([], Objective("val/x")) == "no trial is done yet"


def test_a_table_on_a_terminal_and_lines_elsewhere(tmp_path: Path):
    coordinator, _ = make_coordinator(make_sweep(tmp_path))
    printed = {}
    for is_terminal in (True, False):
        file = io.StringIO()
        display = Display(Console(file=file, force_terminal=is_terminal, width=100))
        with display:
            coordinator.run(lambda display=display: display.update(coordinator))
            display.line("trial 0: [not markup] " + "long " * 30)
        printed[is_terminal] = file.getvalue()
    assert "s: " in printed[True]
    assert "parameters" in printed[True]
    assert printed[False] == "trial 0: [not markup] " + "long " * 30 + "\n"
