"""The shipped configurations as compositions of files, and compositions of one's own."""

from pathlib import Path

import pytest
import yaml

from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.config_files import read_config, with_bases
from tests.cli.test_callback_options import callbacks_of
from tests.cli.test_lightning import CONFIG, command, error_of, folder, printed_config  # noqa: F401  (a fixture)

CONFIGS = Path(__file__).parents[2] / "configs"
STAGES = ("manifold", "remixer", "temporal_aggregation", "audio_to_visual", "v2a_mapper")
FILES = [*STAGES, *(f"paper/{stage}" for stage in STAGES)]
SHARED = ("ModelCheckpoint", "ModelCheckpoint", "Throughput", "GracefulInterrupt", "RunSummary")
TRANSLATED = {"audio_to_visual": "val/translation_cosine"}
"""What the best checkpoint has most of, where it is not SSMS."""


@pytest.mark.parametrize("file", FILES)
def test_every_stage_has_what_all_share_and_a_name_of_its_own(file: str):
    stage, is_paper = Path(file).name, file.startswith("paper/")
    assert next(path.name for path in with_bases(CONFIGS / f"{file}.yaml")) == "trainer.yaml"
    config = read_config(CONFIGS / f"{file}.yaml")
    trainer = config["trainer"]
    assert set(config) == {"seed_everything", "trainer", "model", "data"}
    assert trainer["logger"]["init_args"] == {
        "save_dir": "runs",
        "name": f"{stage.replace('_', '-')}-paper" if is_paper else stage,
        "default_hp_metric": False,
    }
    names = [callback["class_path"] for callback in trainer["callbacks"]]
    assert tuple(names[: len(SHARED)]) == SHARED
    assert "HyperparameterBoard" in names[len(SHARED) :]
    best, last = (callback["init_args"] for callback in trainer["callbacks"][:2])
    assert (best["monitor"], best["mode"], best["filename"]) == (TRANSLATED.get(stage, "val/ssms"), "max", "best")
    assert (last["filename"], last["every_n_epochs"]) == ("last", 4 if is_paper else 1)
    assert (trainer.get("precision"), trainer["devices"]) == (("bf16-mixed", "auto") if is_paper else (None, 1))


def test_the_demos_mean_teacher_stands_in_one_file():
    files = [path for path in CONFIGS.rglob("*.yaml") if "consistency_rampup_epochs: 10" in path.read_text()]
    assert files == [CONFIGS / "mean_teacher.yaml"]
    names = [callback["class_path"] for callback in read_config(CONFIGS / "manifold.yaml")["trainer"]["callbacks"]]
    assert names[len(SHARED) : len(SHARED) + 2] == ["EMATeacher", "PairFilter"]


def test_a_run_s_own_config_is_whole(folder: Path):  # noqa: F811
    build_cli(command("fit", "--trainer.max_epochs=1"))
    saved = yaml.safe_load(Path("runs/manifold/version_0/config.yaml").read_text())
    assert "base" not in saved
    assert saved["trainer"]["use_distributed_sampler"] is False  # of trainer.yaml
    assert callbacks_of(saved)["EMATeacher"]["teacher_epochs"] == 30  # of mean_teacher.yaml
    assert list(callbacks_of(saved))[-1] == "CMSSShardWriter"  # of manifold.yaml


def test_a_file_of_one_s_own_builds_on_a_shipped_one(folder: Path, capsys):  # noqa: F811
    Path("mine.yaml").write_text(
        f"base: {CONFIG}\ntrainer: {{max_epochs: 3, callbacks+: [ClassSimilarity]}}\n"
        "model: {init_args: {measuring: {top_n: 7}}}"
    )
    shipped, mine = (printed_config(command("fit", config=config), capsys) for config in (CONFIG, "mine.yaml"))
    assert (shipped["trainer"].pop("max_epochs"), mine["trainer"].pop("max_epochs")) == (70, 3)
    assert list(callbacks_of(mine)) == [*callbacks_of(shipped), "ClassSimilarity"]
    del shipped["trainer"]["callbacks"], mine["trainer"]["callbacks"]
    assert mine == shipped  # tiny.yaml, which comes after, wins over both


def test_overlays_append_to_the_callbacks_one_after_another(folder: Path, capsys):  # noqa: F811
    Path("one.yaml").write_text("trainer: {callbacks+: [ClassSimilarity]}")
    Path("two.yaml").write_text(
        "base: one.yaml\ntrainer: {callbacks+: [{class_path: EarlyStopping, init_args: {monitor: x}}]}"
    )
    before = list(callbacks_of(printed_config(command("fit"), capsys)))
    after = callbacks_of(
        printed_config(command("fit", "-c", "two.yaml", "--trainer.callbacks+=LearningRateMonitor"), capsys)
    )
    assert list(after) == [*before, "ClassSimilarity", "EarlyStopping", "LearningRateMonitor"]
    options = ["-c", "two.yaml", "--trainer.callbacks.EarlyStopping.patience=9", "--trainer.callbacks.PairFilter=false"]
    after = callbacks_of(printed_config(command("fit", *options), capsys))
    assert list(after) == [*(name for name in before if name != "PairFilter"), "ClassSimilarity", "EarlyStopping"]
    assert after["EarlyStopping"]["patience"] == 9
    printed = printed_config(
        command("fit", "--trainer.callbacks=[]", "--trainer.callbacks+=LearningRateMonitor"), capsys
    )
    assert list(callbacks_of(printed)) == ["LearningRateMonitor"]


SHARED_FILE = "base: shared.yaml"


@pytest.mark.parametrize(
    ("mine", "shared", "messages"),
    [
        (SHARED_FILE, "trainer: {max_epoks: 1}", ["shared.yaml: ", "did you mean trainer.max_epochs?"]),
        (
            SHARED_FILE,
            "model: {init_args: {kl_wieght: 1}}",
            ["shared.yaml: model: Option", "did you mean model.kl_weight?"],
        ),
        (
            SHARED_FILE,
            "trainer: {callback+: [ClassSimilarity]}",
            ["shared.yaml: Subcommand", "did you mean trainer.callbacks+?"],
        ),
        (SHARED_FILE, "base: mine.yaml", ["shared.yaml: base: mine.yaml builds on this file itself"]),
        (SHARED_FILE, "trainer: [", ["mine.yaml: base: shared.yaml holds no YAML mapping"]),
        ("base: shard.yaml", "", ["mine.yaml: base: shard.yaml is no file; did you mean shared.yaml?"]),
    ],
)
def test_what_is_wrong_in_a_base_is_one_line_with_its_file(folder: Path, capsys, mine, shared, messages):  # noqa: F811
    Path("mine.yaml").write_text(mine)
    Path("shared.yaml").write_text(shared)
    line = error_of(command("fit", "--config=mine.yaml", "--trainer.callbacks.PairFilter=false"), capsys)
    assert line == error_of(command("fit", "-c", "mine.yaml"), capsys)
    assert line.startswith("lightning: error: ")
    assert all(message in line for message in messages)
    assert len(line) < 300


INTERPOLATED = """
model: {init_args: {kl_weight: "${model.init_args.optimization.weight_decay}"}}
trainer: {callbacks+: [{class_path: EarlyStopping, init_args: {monitor: x, patience: "${trainer.max_epochs}"}}]}
"""


@pytest.mark.parametrize("base", ["", f"base: {CONFIG}"])
def test_an_interpolation_takes_what_files_and_options_have_made(folder: Path, capsys, base: str):  # noqa: F811
    Path("mine.yaml").write_text(base + INTERPOLATED)
    later = ["--model.optimization.weight_decay=0.25", "--trainer.max_epochs=9"]
    for options in (later, [*later, "--trainer.callbacks.EarlyStopping.min_delta=0.5"]):
        printed = printed_config(command("fit", "-c", "mine.yaml", *options), capsys)
        assert printed["model"]["init_args"]["kl_weight"] == 0.25
        assert callbacks_of(printed)["EarlyStopping"]["patience"] == 9


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${model.init_args.kl_wieght}", "error: model.kl_weight: Interpolation key '.kl_wieght' not found"),
        ("${model", "error: model.kl_weight: "),
        ("${model.class_path}", "model.kl_weight: Expected a float. Got value: lightning_ss2a.training.ManifoldModule"),
    ],
)
def test_an_interpolation_of_nothing_is_one_line(folder: Path, capsys, written: str, message: str):  # noqa: F811
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"kl_weight": written}}}))
    assert message in error_of(command("fit", "-c", "mine.yaml"), capsys)
