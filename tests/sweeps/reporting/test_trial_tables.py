import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.sweeps.reporting.importance import Importances
from lightning_ss2a.sweeps.reporting.trial_tables import importance_lines, trials_table, write_report
from tests.sweeps.studies import LOSS, LR, SSMS, realistic


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def shown(*arguments, width: int = 80, **options) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(trials_table(*arguments, **options))
    return text.getvalue()


def test_every_trial_of_every_state_is_a_row_and_numbers_lose_nothing(tmp_path: Path):
    records, space = realistic()
    write_report(tmp_path, records, [SSMS], space)
    header, *rows = rows_of(tmp_path / "trials.csv")
    assert sorted(int(row[0]) for row in rows) == list(range(24))
    by_number = {int(row[0]): dict(zip(header, row, strict=True)) for row in rows}
    for record in records:
        row = by_number[record.number]
        assert row["state"] == record.state
        assert float(row[LR]) == record.point[LR]
        assert row["reason"] == (record.reason or "")
        assert row["val/ssms"] == ("" if record.mean("val/ssms") is None else repr(record.mean("val/ssms")))
    means = [float(row[header.index("val/ssms")]) for row in rows if row[1] == "complete"]
    assert means == sorted(means, reverse=True)
    assert rows[0][header.index("val/ssms within spread of best")] == "True"


def test_every_repeat_is_a_row_with_all_its_metrics(tmp_path: Path):
    records, space = realistic()
    write_report(tmp_path, records, [SSMS], space)
    header, *rows = rows_of(tmp_path / "runs.csv")
    assert len(rows) == sum(len(record.metrics) for record in records)
    first = dict(zip(header, rows[0], strict=True))
    assert float(first["val/ssms_ridge"]) == 3.3
    assert float(first["val/ssms"]) == records[0].metrics["seed_0"]["val/ssms"]


def test_inactive_and_null_are_told_apart(tmp_path: Path):
    records = [
        TrialRecord(0, "complete", {"a": None}, {"seed_0": {"val/ssms": 1.0}}),
        TrialRecord(1, "complete", {}, {"seed_0": {"val/ssms": 0.5}}),
    ]
    write_report(tmp_path, records, [SSMS], ["a"])
    header, *rows = rows_of(tmp_path / "trials.csv")
    assert [row[header.index("a")] for row in rows] == ["null", ""]


def test_the_front_comes_first_and_is_marked(tmp_path: Path):
    records, space = realistic()
    write_report(tmp_path, records, [SSMS, LOSS], space)
    header, *rows = rows_of(tmp_path / "trials.csv")
    on_front = [row[header.index("on front")] for row in rows]
    assert on_front[0] == "True"
    assert on_front == sorted(on_front, reverse=True)
    assert "| trial | front | val/ssms | val/loss |" in (tmp_path / "trials.md").read_text(encoding="utf-8")


def test_the_page_has_ranking_importances_and_reasons(tmp_path: Path):
    records, space = realistic()
    importances = [Importances("val/ssms", {LR: 0.9, "model.manifold.dropout": 0.1}, 20)]
    write_report(tmp_path, records, [SSMS], space, importances)
    page = (tmp_path / "trials.md").read_text(encoding="utf-8")
    assert "| 7 | 3.566 ± 0.048 | best |" in page
    assert "| 1 | 3.516 ± 0.040 | 0.050 ± 0.086, tied |" in page
    assert "- val/ssms: lr 90 %, dropout 10 % (of 20 trials)" in page
    assert r"| 5 | failed | out of memory on cuda:0 [batch 4096 \| width 1024] Tried to allocate |" in page


def test_nothing_complete_still_writes_all_files(tmp_path: Path):
    records = [TrialRecord(0, "failed", {"a": 1}, reason="no such shard"), TrialRecord(1, "waiting", {"a": 2})]
    write_report(tmp_path, records, [SSMS], ["a"])
    assert {path.name for path in tmp_path.iterdir()} == {"trials.csv", "trials.md", "runs.csv"}
    assert "No trial is complete." in (tmp_path / "trials.md").read_text(encoding="utf-8")
    write_report(tmp_path, [], [SSMS], ["a"])
    assert len(rows_of(tmp_path / "trials.csv")) == 1
    assert "2 failed" not in shown(records, [SSMS], ["a"])


def test_files_are_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    records, space = realistic()
    write_report(tmp_path, records, [SSMS], space)
    before = (tmp_path / "trials.csv").read_text(encoding="utf-8")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, records[:3], [SSMS], space)
    assert (tmp_path / "trials.csv").read_text(encoding="utf-8") == before


def test_the_terminal_shows_the_best_and_counts_the_rest():
    records, space = realistic()
    text = shown(records, [SSMS], space, limit=3)
    assert "3.566 ± 0.048" in text
    assert "lr 0.002825, dropout 0.3283" in text
    assert "2.310" not in text
    assert "17 more complete in trials.csv, 1 failed, 2 pruned, 1 running" in " ".join(text.split())


def test_parameters_of_one_value_are_left_out():
    records = [
        TrialRecord(i, "complete", {"model.lr": 0.1 * i, "model.fixed": 7}, {"seed_0": {"val/ssms": float(i)}})
        for i in range(1, 3)
    ]
    text = shown(records, [SSMS], ["model.lr", "model.fixed"])
    header = next(line for line in text.splitlines() if "trial" in line)
    assert header.split() == ["trial", "val/ssms", "behind", "best", "setting"]
    assert "lr 0.2" in text
    assert "fixed" not in text


def test_brackets_in_a_choice_are_no_markup():
    records = [TrialRecord(i, "complete", {"a": f"[{i}, 2]"}, {"s": {"val/ssms": 1.0}}) for i in range(2)]
    assert "[1, 2]" in shown(records, [SSMS], ["a"])


def test_importances_say_why_there_are_none():
    assert importance_lines([Importances("val/ssms", reason="all trials have the same value")]) == [
        "val/ssms: none, all trials have the same value"
    ]
    line = importance_lines([Importances("m", {"a.x": 1.0}, 9, ("b.x",))])[0]
    assert line == "m: a.x 100 % (of 9 trials; one value or not in every trial: b.x)"


def test_smaller_is_better_sorts_upwards(tmp_path: Path):
    records, space = realistic()
    write_report(tmp_path, records, [Objective("val/loss", maximize=False)], space)
    header, *rows = rows_of(tmp_path / "trials.csv")
    losses = [float(row[header.index("val/loss")]) for row in rows if row[1] == "complete"]
    assert losses == sorted(losses)
    assert all(float(row[header.index("val/loss behind best")]) >= 0 for row in rows if row[1] == "complete")


def test_the_report_starts_without_heavy_packages():
    code = (
        "import sys, lightning_ss2a.sweeps.reporting.trial_tables;"
        "print([m for m in ('torch', 'optuna', 'lightning', 'matplotlib', 'rich', 'tensorboard') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
