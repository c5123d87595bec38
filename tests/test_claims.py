"""The pages of docs/claims: their tables hold the numbers of the runs, and name sweeps that exist."""

import contextlib
import csv
import importlib.util
import io
import re
import statistics
from pathlib import Path
from types import ModuleType

import pytest

from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.sweeps.running.trial_runs import Runs

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "claims").glob("*.md"))


@pytest.fixture(scope="module")
def fill_tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill_tables", ROOT / "docs" / "fill_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "sweeps.md"], ids=lambda page: page.stem)
def test_tables_of_a_page_are_those_of_the_runs(page: Path, fill_tables: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding="utf-8")
    assert fill_tables.filled(text) == text
    for match in fill_tables.TABLE.finditer(text):
        sweep = fill_tables.read_sweep(match["arguments"])
        runs = Runs(sweep)  # refuses placeholders and paths that are none
        file = fill_tables.record_file(sweep)
        if file.is_file():
            repeats = {repeat.label for repeat in runs.repeats}
            with open(file, newline="", encoding="utf-8") as opened:
                assert {row["repeat"] for row in csv.DictReader(opened)} <= repeats
            points = [trial.point for trial in fill_tables.read_runs(file, sweep.space)]
            assert all(point in runs.points() for point in points)


def test_every_claim_has_a_page_that_the_verdicts_link():
    linked = re.findall(r"^\| \[[^\]]+\]\((\w+\.md)\)", (PAGES[0].parent / "README.md").read_text("utf-8"), re.M)
    assert sorted(linked) == sorted(page.name for page in PAGES if page.name != "README.md")


def test_runs_of_a_finished_sweep_are_taken_over_with_the_numbers_shown(
    fill_tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    page, command = tmp_path / "page.md", "-c configs/sweeps/translation.yaml -c configs/studies/simulated.yaml"
    page.write_text(f"before\n<!-- ss2a sweep {command} -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(fill_tables, "PAGES", (page,))
    monkeypatch.setattr(fill_tables, "CLAIMS", tmp_path / "claims")
    study = tmp_path / "sweeps" / "simulated" / "translation"
    study.mkdir(parents=True)
    header = "number,repeat,state,model.contrastive_weight,train/loss,val/translation_cosine\n"
    study.joinpath("runs.csv").write_text(f"{header}0,seed_0,complete,0.1,7,0.25\n0,seed_1,complete,0.1,7,0.5\n")
    [taken] = fill_tables.collect(tmp_path / "sweeps")
    assert taken.read_text().splitlines()[0] == "number,repeat,state,model.contrastive_weight,val/translation_cosine"
    assert "| translator | 0.38 ± 0.18 |" in fill_tables.filled(page.read_text())


def test_a_choice_made_apart_is_that_of_the_other_folds(fill_tables: ModuleType, tmp_path: Path):
    names = [part for metric in fill_tables.SEARCHED for part in (metric, f"{metric}_baseline/ridge")]
    file = tmp_path / "runs.csv"
    with open(file, "w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["number", "repeat", "state", *names])
        for number, folds in enumerate([(1, 1, 1), (9, 2, 2), (3, 3, 3)]):
            for fold, value in enumerate(folds):
                writer.writerow([number, fold, "complete", *[value, 1.0] * 4])
    # Without fold 0 trial 2 is best, without fold 1 or 2 trial 1; in hindsight trial 1, first trial 0.
    apart, best = [2, 1, 1], [8, 1, 1]
    cells = [f"{statistics.fmean(x):+.3f} ± {statistics.stdev(x):.3f}" for x in ([0, 0, 0], apart, best)]
    assert f"| SSMS | 1.000 | {' | '.join(cells)} |" in fill_tables.nested_choice(file)


STAND_INS = {"pairs": "demo", "scenes": "demo_scenes", "videos": "demo_videos", "frames": "demo_videos"}
COMMANDS = sorted({m[1] for page in PAGES for m in re.finditer(r"<!-- ss2a sweep (.*?) -->", page.read_text("utf-8"))})
COMMANDS = [c for c in COMMANDS if not re.search("paper_table|_moved|_translators|_baselines|_sources", c)]


@pytest.mark.parametrize(
    "arguments", [c for c in COMMANDS if "paper_table" not in c], ids=lambda c: c.replace("/", ".")
)
def test_every_option_of_the_last_point_is_one_of_the_command_line(
    arguments: str, fill_tables: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    runs = Runs(fill_tables.read_sweep(arguments))
    options = []
    for option in runs.options(runs.points()[-1], runs.repeats[-1]):
        name, _, value = option.partition("=")
        if name == "--data.datasets" and not Path(value).exists():
            option = f"{name}=shards/{next(STAND_INS[step] for step in reversed(STAND_INS) if step in value)}"
        options.append(option)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        build_cli([runs.sweep.command, *options, "--print_config"])
    assert ended.value.code in (0, None)
    assert "Figures" not in printed.getvalue()


SMALL = "--splits={train: 300, small: 300, large: 300, validation: 64}"


@pytest.mark.parametrize("config", ["pairs", "scenes", "noisy_pairs", "many_noisy_pairs"])
def test_data_of_the_studies_can_be_drawn(config: str, tmp_path: Path):
    ss2a(["shards", "simulate", "-c", str(ROOT / "configs" / "studies" / f"{config}.yaml"), str(tmp_path), SMALL])


def test_the_readme_says_what_the_runs_of_the_demo_say():
    names = {
        "SSMS (0 to 10)": "ssms",
        "reconstruction cosine": "reconstruction_cosine",
        "recall@5, picture to sound": "recall@5/visual_to_audio",
        "recall@5, sound to picture": "recall@5/audio_to_visual",
        "CLIP score": "clip_score",
    }
    suffixes = ("", *(f"_baseline/{name}" for name in ("ridge_ssms", "ridge", "mean_audio", "chance")))
    with open(ROOT / "docs" / "claims" / "runs" / "demo_folds.csv", newline="", encoding="utf-8") as opened:
        runs = [row for row in csv.DictReader(opened) if row["pairs"] == "as they are"]
    assert len(runs) == 15
    rows = re.findall(r"^\| ([^|]+) \|((?: [^|]*\|){5})$", (ROOT / "README.md").read_text("utf-8"), re.M)
    shown = {name: cells.split("|")[:-1] for name, cells in rows if name in names}
    assert shown.keys() == names.keys()
    for name, cells in shown.items():
        for cell, suffix in zip(cells, suffixes, strict=True):
            if cell.strip():
                values = [float(run[f"val/{names[name]}{suffix}"]) for run in runs]
                mean, _, deviation = cell.strip().partition(" ± ")
                assert float(mean) == pytest.approx(statistics.mean(values), abs=0.5001 * 10 ** -decimals(mean))
                if deviation:
                    expected = pytest.approx(statistics.stdev(values), abs=0.5001 * 10 ** -decimals(deviation))
                    assert float(deviation) == expected


def decimals(number: str) -> int:
    return len(number.partition(".")[2])
