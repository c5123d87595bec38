"""Tables laid out as a paper's: numbers against numpy, layouts that do not fit."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.records import TrialRecord
from lightning_ss2a.sweeps.reporting.paper_table import write_table
from lightning_ss2a.sweeps.space import Parameter, SearchSpace
from lightning_ss2a.sweeps.table_layout import Table, check_table

ALPHA, MASK, WIDTH = "model.ccmr_alpha", "model.ccmr_mask_diagonal", "model.width"
SPACE = SearchSpace(
    {
        ALPHA: Parameter(choices=[0, 0.35, 2]),
        MASK: Parameter(choices=[True, False], when={ALPHA: [0.35, 2]}),
        WIDTH: Parameter(choices=[64, 128]),
    }
)
SSMS, GAP, NEVER = "val/ssms", "val/gap", "val/never_logged"
REPEATS = ("seed_0", "seed_1", "seed_2")


def trials(seed: int = 0) -> list[TrialRecord]:
    dice = np.random.default_rng(seed)
    found = []
    for number, point in enumerate(SPACE.grid()[::-1]):  # order of the queue is not that of the table
        metrics = {
            repeat: {SSMS: dice.normal(4), GAP: dice.normal(), f"{SSMS}_baseline/ridge": 3.0 + at}
            for at, repeat in enumerate(REPEATS)
        }
        found.append(TrialRecord(number, "complete", point, metrics))
    return found


def sample(records: list[TrialRecord], metric: str, **wanted) -> np.ndarray:
    """By repeat, the mean over the trials at these values (None: not active)."""
    names = {"alpha": ALPHA, "mask": MASK, "width": WIDTH}
    chosen = [r for r in records if all(r.point.get(names[n]) == value for n, value in wanted.items())]
    assert chosen
    return np.mean([[r.metrics[repeat][metric] for repeat in REPEATS] for r in chosen], axis=0)


def table(**options) -> Table:
    return Table(**{"title": "Masks", "rows": [ALPHA, MASK], "metrics": {SSMS: "SSMS", NEVER: "never"}} | options)


def read(folder: Path) -> list[dict[str, str]]:
    with open(folder / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def shown(values: np.ndarray, column: list[np.ndarray]) -> str:
    """A cell, with two significant digits of the median spread in its column."""
    digits = max(0, 1 - int(np.floor(np.log10(np.median([v.std(ddof=1) for v in column])))))
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def cells(folder: Path) -> list[list[str]]:
    lines = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numbers_are_those_of_numpy(tmp_path: Path, seed: int):
    records = trials(seed)
    layout = table(base={ALPHA: 0}, baselines={"ridge": "ridge regression"}, against={SSMS: GAP})
    files = write_table(tmp_path, layout, records, SPACE)
    assert files == [tmp_path / "table.md", tmp_path / "table.csv"]
    *rows, baseline = read(tmp_path)
    keys = [(0, None), (0.35, True), (0.35, False), (2, True), (2, False)]
    assert [(row[ALPHA], row[MASK]) for row in rows] == [
        ("0", ""), *((str(alpha), str(mask)) for alpha, mask in keys[1:])
    ]  # fmt: skip
    base = sample(records, SSMS, alpha=0)
    for row, (alpha, mask) in zip(rows, keys, strict=True):
        own, gap = (sample(records, metric, alpha=alpha, mask=mask) for metric in (SSMS, GAP))
        for name, values in {SSMS: own, f"{SSMS} change": own - base, f"{SSMS} less {GAP}": own - gap}.items():
            if alpha == 0 and "change" in name:
                assert (row[f"{name} mean"], row[f"{name} n"]) == ("", "0")
                continue
            assert float(row[f"{name} mean"]) == pytest.approx(values.mean())
            assert float(row[f"{name} spread"]) == pytest.approx(values.std(ddof=1))
            assert row[f"{name} n"] == "3"
    assert baseline["baseline"] == "ridge"
    assert float(baseline[f"{SSMS} mean"]) == 4
    assert not any(NEVER in name for name in baseline)


def test_markdown_is_laid_out_with_labels(tmp_path: Path):
    records = trials()
    layout = table(
        base={ALPHA: 0},
        baselines={"ridge": "ridge regression"},
        headings={ALPHA: "alpha", MASK: "masked pairs"},
        labels={MASK: {"": "off", "true": "all", "false": "others"}},
        notes="What it shows.",
    )
    write_table(tmp_path, layout, records, SPACE)
    header, _, *rows = cells(tmp_path)
    assert header == ["alpha", "masked pairs", "SSMS", "SSMS, change from 0"]
    assert [row[:2] for row in rows[:3]] == [["0", "off"], ["0.35", "all"], ["0.35", "others"]]
    base, *others = (
        sample(records, SSMS, alpha=a, mask=m) for a, m in [(0, None), *itertools.product((0.35, 2), (True, False))]
    )
    ridge = np.array([3.0, 4.0, 5.0])
    changes = [values - base for values in others]
    assert rows[1][2] == shown(others[0], [base, *others, ridge])
    assert rows[1][3] == shown(changes[0], changes)
    assert rows[0][3] == ""
    assert rows[-1] == ["ridge regression", "", shown(ridge, [base, *others, ridge]), ""]
    text = (tmp_path / "table.md").read_text()
    assert "What it shows." in text
    assert "over 3 runs; changes and differences are paired by run." in text


def test_a_second_parameter_goes_across_and_has_its_own_base(tmp_path: Path):
    records = trials()
    layout = table(rows=[ALPHA], columns=WIDTH, base={WIDTH: 64}, headings={WIDTH: "width"})
    write_table(tmp_path, layout, records, SPACE)
    first, _, *rows = cells(tmp_path)
    assert first == [ALPHA, "width 64", "width 128"]
    assert len(rows) == 3 + 2 + 3  # values, then changes
    pairs = [[sample(records, SSMS, alpha=alpha, width=width) for width in (64, 128)] for alpha in (0, 0.35, 2)]
    for at, (narrow, wide) in enumerate(pairs):
        assert rows[at][1] == shown(narrow, [values for pair in pairs for values in pair])
        assert rows[at + 5][1] == ""
        assert rows[at + 5][2] == shown(wide - narrow, [wide - narrow for narrow, wide in pairs])
    assert "**SSMS, change from 64**" in (tmp_path / "table.md").read_text()


def test_what_is_not_complete_is_left_empty_and_counted(tmp_path: Path):
    records = [r for r in trials() if r.point[WIDTH] == 64]
    failed = TrialRecord(9, "failed", {ALPHA: 0.35, MASK: True, WIDTH: 64}, {}, "out of memory")
    records = [failed, *(r for r in records if r.point != failed.point)]
    records[1].metrics["seed_0"][SSMS] = float("nan")
    write_table(tmp_path, table(base={ALPHA: 0}), records, SPACE)
    _, _, *rows = cells(tmp_path)
    assert rows[1] == ["0.35", "true", "", ""]
    assert "empty: not complete (1 of 5)" in (tmp_path / "table.md").read_text()
    counts = [row[f"{SSMS} n"] for row in read(tmp_path)]
    assert sorted(counts) == ["0", "2", "3", "3", "3"]  # a repeat that is not finite has no value


def test_no_trial_and_one_repeat(tmp_path: Path):
    write_table(tmp_path, table(base={ALPHA: 0}), [], SPACE)
    assert "No trial is complete." in (tmp_path / "table.md").read_text()
    record = TrialRecord(0, "complete", {ALPHA: 0, WIDTH: 64}, {"seed_0": {SSMS: 4.0}})
    write_table(tmp_path, table(), [record], SPACE)
    assert cells(tmp_path)[2] == ["0", "", "4.000"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ["model.ccmr_alfa"]}, r"table.rows: model.ccmr_alfa .* did you mean model.ccmr_alpha\?"),
        ({"columns": "model.widht"}, r"table.columns: .* did you mean model.width\?"),
        ({"headings": {"alpha": "a"}}, "table.headings: alpha is no parameter"),
        ({"labels": {"alpha": {}}}, "table.labels: alpha is no parameter"),
        ({"rows": []}, "at least one parameter in rows"),
        ({"metrics": {}}, "one metric"),
        ({"columns": ALPHA}, "named twice"),
        ({"base": {ALPHA: 0.3}}, r"table.base: model.ccmr_alpha is 0.3, needs one of 0, 0.35, 2"),
        ({"base": {WIDTH: 64}}, "table.base: model.width is in neither rows nor columns"),
        ({"changes": ["val/smss"]}, r"table.changes: val/smss .* did you mean val/ssms\?"),
        ({"against": {"val/gap": "val/ssms"}}, "table.against: val/gap is no metric of the table"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        check_table(table(**options), SPACE)


def test_a_difference_from_a_baseline_is_headed_by_its_label(tmp_path: Path):
    layout = table(baselines={"ridge": "ridge regression"}, against={SSMS: f"{SSMS}_baseline/ridge"})
    write_table(tmp_path, layout, trials(), SPACE)
    assert cells(tmp_path)[0][-1] == "SSMS, less ridge regression"
