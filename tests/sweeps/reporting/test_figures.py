import math
import warnings
from pathlib import Path

import pytest

from lightning_ss2a.sweeps.records import Objective, TrialRecord
from lightning_ss2a.sweeps.reporting.drawing import legible, value_range
from lightning_ss2a.sweeps.reporting.figures import slices, write_figures
from lightning_ss2a.sweeps.reporting.ranking import rank
from lightning_ss2a.sweeps.space import Parameter
from tests.sweeps.studies import LOSS, LR, SSMS, realistic


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def trials(points: list[dict], values: list[float]) -> list[TrialRecord]:
    return [
        TrialRecord(i, "complete", point, {"seed_0": {"val/ssms": value}})
        for i, (point, value) in enumerate(zip(points, values, strict=True))
    ]


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def test_all_figures_of_a_study_are_png_files(tmp_path: Path):
    records, space = realistic()
    written = write_figures(tmp_path, records, [SSMS], space, {"val/ssms": {LR: 1.0}})
    assert names(written) == ["history", "slice"]
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "figures", *written])
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_several_objectives_have_figures_each(tmp_path: Path):
    records, space = realistic()
    assert names(write_figures(tmp_path, records, [SSMS, LOSS], space)) == [
        *("history_0_val_ssms", "slice_0_val_ssms"),
        *("history_1_val_loss", "slice_1_val_loss"),
    ]


def test_every_parameter_has_a_panel_on_its_scale():
    records, space = realistic()
    figure = slices(rank(records, SSMS), SSMS, space)
    assert [axes.get_xlabel() for axes in figure.axes][:2] == ["lr", "dropout"]
    assert figure.axes[0].get_xscale() == "log"
    assert [text.get_text() for text in figure.axes[2].get_xticklabels()] == ["256", "512", "1024"]
    low, high = figure.axes[0].get_xlim()
    assert low <= 1e-5
    assert high >= 1e-1


ODD_SPACE = {"a": Parameter(low=1, high=5), "b": Parameter(choices=["x$y", "[z]"])}


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], []),
        ([TrialRecord(0, "failed", {"a": 1, "b": "[z]"}), TrialRecord(1, "running", {"a": 1})], []),
        (trials([{"a": 1, "b": "[z]"}], [1.0]), ["history"]),
        (trials([{"a": 1, "b": "[z]"}] * 3, [1.0, 2.0, 3.0]), ["history"]),
        (trials([{"a": i, "b": "x$y"} for i in range(1, 6)], [2.0] * 5), ["history", "slice"]),
        (trials([{"a": i} for i in range(1, 5)], [1.0, math.nan, -math.inf, 2.0]), ["history", "slice"]),
        (trials([{"a": 1}, {"b": "x$y"}, {}], [0.0, 0.0, 0.0]), ["history", "slice"]),
        (trials([{"a": 9, "b": "gone"}, {"a": 0, "b": "[z]"}], [1.0, 2.0]), ["history", "slice"]),
        (trials([{"a": 1}, {"a": 2}], [1e300, -1e300]), ["history", "slice"]),
    ],
    ids=[
        "nothing",
        "none_complete",
        "one",
        "no_parameter_varies",
        "no_value_varies",
        "nan",
        "conditional",
        "narrowed",
        "huge",
    ],
)
def test_odd_studies_are_drawn_as_far_as_they_go(tmp_path: Path, records, expected):
    assert names(write_figures(tmp_path, records, [SSMS], ODD_SPACE)) == expected


def test_a_value_gone_astray_does_not_flatten_the_others():
    ranked = rank(trials([{}] * 9, [*(1.0 + 0.1 * i for i in range(8)), 1e6]), Objective("val/ssms", maximize=False))
    low, high = value_range(ranked, Objective("val/ssms", maximize=False))
    assert low < 1.0
    assert 1.7 < high < 5


def test_all_values_are_in_range_when_none_is_astray():
    ranked = rank(trials([{}] * 8, [float(i) for i in range(8)]), SSMS)
    low, high = value_range(ranked, SSMS)
    assert low < 0
    assert high > 7


def test_labels_are_broken_where_words_end():
    assert legible("batch_norm_without_running_statistics", 16, 3) == "batch_norm_\nwithout_running_\nstatistics"
    assert legible("x" * 50, 10, 2).splitlines()[1].endswith("…")
    assert legible("a$b") == r"a\$b"


def test_pyplot_is_not_touched(tmp_path: Path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    records, space = realistic()
    write_figures(tmp_path, records, [SSMS, LOSS], space)
    assert dict(matplotlib.rcParams) == before
