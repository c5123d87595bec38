"""The paper's ablations as sweep files: each in each world, and those on the demo from nothing to a table."""

import contextlib
import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.cli.ss2a import build_parser
from lightning_ss2a.cli.ss2a import run as ss2a
from lightning_ss2a.errors import InputError
from lightning_ss2a.sweeps.definition import Sweep
from lightning_ss2a.sweeps.running.trial_runs import Runs

ROOT = Path(__file__).parents[3]
TRIALS = {"3": 3, "4": 11, "8": 32, "9": 5, "10": 4, "12": 4}
"""By table of the paper."""

RUNS = {"demo": 5, "simulated": 3, "paper": 3}
"""Of a trial, by world."""

LINKS = {
    **dict.fromkeys(["vggss", "vggs3", "laion"], "demo"),
    "vggsound_scenes": "demo_scenes",
    "vggsound_videos": "demo_videos",
}
"""What stands in for the paper's data sets."""


def files(table: str, world: str) -> list[str]:
    return ["-c", f"configs/sweeps/paper_table_{table}.yaml", "-c", f"configs/studies/{world}.yaml"]


def read(table: str, world: str, *more: str) -> Sweep:
    parser = build_parser()
    options = parser.instantiate(parser.parse_args(["sweep", *files(table, world), *more])).sweep
    given = {name: value for name, value in vars(options).items() if name not in ("config", "dry_run")}
    return Sweep(**given)


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the paper's data sets, as far as a config can tell."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "shards").mkdir()
    for name in ("demo", "demo_scenes", "demo_videos"):
        (tmp_path / "shards" / name).symlink_to(ROOT / "shards" / name)
    for name, source in LINKS.items():
        (tmp_path / "shards" / name).symlink_to(ROOT / "shards" / source)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("world", RUNS)
@pytest.mark.parametrize(
    "table", [pytest.param(table, marks=pytest.mark.slow) if table == "8" else table for table in TRIALS]
)
@pytest.mark.usefixtures("with_data")
def test_every_table_is_a_sweep_in_every_world(table: str, world: str):
    sweep = read(table, world)
    assert (sweep.name, sweep.folder) == (f"paper_table_{table}", f"runs/sweeps/{world}")
    runs = Runs(sweep)
    assert len(runs.points()) == TRIALS[table]
    assert len(runs.repeats) == RUNS[world]
    outputs = []
    for repeat in runs.repeats:
        steps = runs.steps(repeat)
        outputs += [step.output for step in steps]
        texts = [runs.options(point, repeat) for point in runs.points()]
        assert len(set(map(tuple, texts))) == TRIALS[table]
        assert not [text for options in texts for text in options if "{" in text]
        for step in steps:  # built before it is used
            assert all(need in outputs for need in step.needs)
            for file in step.arguments[step.arguments.index("-c") + 1 :: 2] if "-c" in step.arguments else ():
                assert not file.endswith(".yaml") or Path(file).is_file()
    assert len(set(outputs)) == len(outputs)  # no two repeats share a world, or a manifold


@pytest.mark.parametrize("world", RUNS)
@pytest.mark.parametrize("table", TRIALS)
@pytest.mark.usefixtures("with_data")
def test_every_option_is_one_of_the_command_line(table: str, world: str):
    """Each path and each value of the last point, with data that stand in for what steps would make."""
    runs = Runs(read(table, world))
    point, repeat = runs.points()[-1], runs.repeats[0]
    options = []
    for option in runs.options(point, repeat):
        name, _, value = option.partition("=")
        if name == "--data.datasets" and not Path(value).exists():
            step = next(step for step in ("frames", "scenes", "pairs") if step in value)
            option = f"{name}=shards/{ {'frames': 'demo_videos', 'scenes': 'demo_scenes', 'pairs': 'demo'}[step] }"
        options.append(option)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        build_cli([runs.sweep.command, *options, "--print_config"])
    assert ended.value.code in (0, None)
    config = yaml.safe_load(printed.getvalue())
    assert config["data"]["init_args"]["seed"] == 0
    assert "Figures" not in str(config["trainer"]["callbacks"])


@pytest.mark.parametrize("table", TRIALS)
@pytest.mark.usefixtures("in_root")
def test_without_the_papers_data_the_first_line_says_what_is_missing(table: str):
    with pytest.raises(InputError, match=r"^shards/vggss is not there: put or link your shards of VGG-SS there"):
        Runs(read(table, "paper"))


@pytest.mark.usefixtures("in_root")
def test_a_table_without_a_world_names_the_worlds_base():
    parser = build_parser()
    options = parser.instantiate(parser.parse_args(["sweep", *files("3", "demo")[:2]])).sweep
    given = {name: value for name, value in vars(options).items() if name not in ("config", "dry_run")}
    with pytest.raises(InputError, match=r"base: remixer is no file and no name in bases; .*add a sweep file that has"):
        Runs(Sweep(**given))


@pytest.mark.usefixtures("in_root")
def test_sizes_by_name_are_part_of_the_question():
    sweep = read("9", "demo")
    base = replace(
        sweep.bases["manifold_depth"], values=sweep.bases["manifold_depth"].values | {"projectors_1": "[64]"}
    )
    other = replace(sweep, bases=sweep.bases | {"manifold_depth": base})
    assert sweep.question() != other.question()


SHORT = {"trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1}


@pytest.mark.slow
@pytest.mark.parametrize("table", TRIALS)
@pytest.mark.usefixtures("in_root")
def test_a_table_of_the_demo_is_made_from_nothing(
    table: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path_factory.getbasetemp() / "paper_tables"  # one for all, which share what they build on
    folder.mkdir(exist_ok=True)
    demo = yaml.safe_load(Path("configs/studies/demo.yaml").read_text())
    demo["repeats"] = {"data.fold": [0, 3]}
    for name, command in demo["prepare"].items():
        if command.startswith("lightning"):
            demo["prepare"][name] = f"{command} --trainer.max_epochs=10"
    for base in demo["bases"].values():
        base["configs"] = [str(Path("configs/studies", config).resolve()) for config in base["configs"]]
    overlay = folder / "demo.yaml"
    overlay.write_text(yaml.safe_dump(demo))
    options = ["--folder", str(folder), "--workers=1"]
    if table == "8":
        options.append('--parameters={"model.cycle_mix.samples": {"choices": [1, 4]}, '
                       '"model.cycle_mix.iterations": {"choices": [1, 4]}, "KL weight": {"settings": {"5e-5": '
                       '{"ckpt_path": "{remixer}/checkpoints/last.ckpt", "model.kl_weight": 5e-5}}}}')  # fmt: skip
    else:
        options.append(f"--overrides={SHORT}")
    assert ss2a(["sweep", *files(table, "demo")[:2], "-c", str(overlay), *options]) == 0
    with open(folder / f"paper_table_{table}" / "table.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["baseline"]]
    assert len(rows) == (4 if table == "8" else TRIALS[table])
    means = [(name, value) for row in rows for name, value in row.items() if name.endswith(" mean")]
    empty = [name for name, value in means if not value]
    assert {name for name in empty if " change " not in name} == set()  # the base alone has no change
    assert {row[f"{Sweep.metric} n"] for row in rows if table not in ("3", "8", "10")} <= {"2"}
