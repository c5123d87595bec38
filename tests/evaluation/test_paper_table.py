"""Reports of several data sets in one table."""

import json
from pathlib import Path

import pytest
import yaml

from lightning_ss2a.errors import InputError
from lightning_ss2a.evaluation.paper_table import join_reports
from lightning_ss2a.evaluation.reporting import reproducibility, write_report
from tests.cli.test_ss2a import run
from tests.evaluation.test_evaluate import evaluate, tones


def report(tmp_path: Path, name: str, methods: dict[str, float], reference: bool = True, seconds: str = "10") -> Path:
    """Evaluates methods of these amplitudes, against references of half the scale."""
    side = tones(tmp_path / name / "r", 0.5) if reference else None
    folders = [f"{method}={tones(tmp_path / name / str(level), level)}" for method, level in methods.items()]
    found = evaluate(tmp_path, folders, side)
    write_report(tmp_path / name, found, reproducibility(found, "ss2a evaluate", seconds, {}))
    return tmp_path / name


@pytest.fixture
def sections(tmp_path: Path) -> dict[str, dict[str, str]]:
    single = report(tmp_path, "single", {"Truth": 0.5, "A&B": 0.6, "C": 0.7, "D": 0.8})
    multi = report(tmp_path, "multi", {"Truth": 0.5, "C": 0.9, "A&B": 0.8})
    pictures = report(tmp_path, "pictures", {"C": 0.9, "E": 0.7}, reference=False)
    return {
        "Single-Source": {"VGG-SS": str(single), "ImageHear": str(pictures)},
        "Multi-Source": {"VGG-SS": str(multi)},
    }


def test_sections_data_sets_places_and_gaps(tmp_path: Path, sections):
    table = join_reports(sections, ["Truth"])
    assert [(column.data, column.measure) for column in table.columns] == [
        *(("VGG-SS", measure) for measure in ("FAD", "SSMS", "KL", "IS")),
        ("ImageHear", "IS"),
    ]
    single, multi = table.sections
    assert [*single.values] == ["Truth", "A&B", "C", "D", "E"]
    assert [*multi.values] == ["Truth", "C", "A&B"]
    scores = json.loads((tmp_path / "multi" / "scores.json").read_text())["scores"]
    wanted = {score["method"]: score["value"] for score in scores if score["measure"] == "FAD"}
    assert {method: values["VGG-SS", "FAD"] for method, values in multi.values.items()} == wanted
    fad = table.columns[0]
    assert [table.place(single, method, fad) for method in single.values] == [0, 1, 2, 0, 0]
    assert [table.place(multi, method, fad) for method in multi.values] == [0, 2, 1]
    latex = table.latex()
    assert r" & Method & \multicolumn{4}{c}{VGG-SS} & \multicolumn{1}{c}{ImageHear} \\" in latex
    assert r"\cmidrule(lr){3-6} \cmidrule(lr){7-7}" in latex
    assert r"\multirow{5}{*}{Single-Source} & Truth & 0.000 & 10.00" in latex
    assert latex.count(r"\midrule") == 2
    rows = [line for line in latex.splitlines() if line.startswith((" & A", " & E"))]
    assert rows[0].startswith(r" & A\&B & \textbf{")
    assert rows[1].startswith(" & E & -- & -- & -- & -- & ")
    assert len({line.count("&") - line.count(r"\&") for line in latex.splitlines() if line.endswith(r"\\")} - {3}) == 1


def test_the_command_writes_it(tmp_path: Path, sections, capsys):
    (tmp_path / "table.yaml").write_text(yaml.safe_dump({"sections": sections, "unranked": ["Truth"]}, sort_keys=False))
    status, out, error = run(["table", "-c", str(tmp_path / "table.yaml"), "--output", str(tmp_path / "out")], capsys)
    assert (status, error) == (0, "")
    assert out.startswith((tmp_path / "out" / "table.md").read_text())
    assert (tmp_path / "out" / "table.tex").read_text() == join_reports(sections, ["Truth"]).latex()


def test_a_method_that_no_report_has_cannot_be_left_unranked(sections):
    with pytest.raises(InputError, match="unranked: no report has the method Trutj; did you mean Truth"):
        join_reports(sections, ["Trutj"])


def test_what_was_measured_in_another_way_is_not_joined(tmp_path: Path, sections):
    other = report(tmp_path, "other", {"C": 0.9}, seconds="8")
    with pytest.raises(InputError, match=r"other/scores\.json: FAD is of sounds 8, and in .*single/scores\.json of 10"):
        join_reports({**sections, "More": {"VGG-SS": str(other)}})
    document = json.loads((tmp_path / "multi" / "scores.json").read_text())
    document["reproducibility"]["models"]["small"] = "small-labeller-v2"
    (tmp_path / "multi" / "scores.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"multi/scores\.json: FAD is of models {'small': 'small-labeller-v2'}"):
        join_reports(sections)


def test_clip_scores_of_pictures_that_became_squares_in_another_way_are_not_joined(tmp_path: Path, sections):
    """How pictures become squares is no part of their encoder's identity."""
    reports = {name: tmp_path / name / "scores.json" for name in ("single", "multi")}
    for (name, file), pictures in zip(reports.items(), ("padded", "stretched"), strict=True):
        document = json.loads(file.read_text())
        document["reproducibility"]["measures"]["CS"] = {"class": "CLIP", "encoder": "small"}
        document["reproducibility"]["pictures"] = pictures
        document["scores"].append({"measure": "CS", "method": "C", "value": 20.0, "higher_is_better": True})
        (tmp_path / name / "scores.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"multi/scores\.json: CS is of pictures stretched, and in .*of padded"):
        join_reports(sections)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "scores.json: cannot be read"),
        ("{", "scores.json: not valid JSON"),
        ("[]", "no report of ss2a evaluate"),
        ('{"scores": [{"measure": "FAD"}], "reproducibility": {"measures": {}}}', "no report of ss2a evaluate"),
    ],
)
def test_a_folder_without_a_report_is_one_line(tmp_path: Path, capsys, content, message):
    if content is not None:
        (tmp_path / "scores.json").write_text(content)
    status, out, error = run(["table", "--sections", f"{{A: {{B: {tmp_path}}}}}"], capsys)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    status, _, error = run(["table"], capsys)
    assert (status, "sections is empty: name reports" in error) == (2, True)
