"""`--ckpt_path`: names of checkpoints, and that only the command line gives one."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from lightning_ss2a.cli.checkpoint_option import find_named, folder_without_logger
from lightning_ss2a.cli.lightning import build_cli
from lightning_ss2a.errors import InputError
from tests.cli.test_lightning import command, error_of, folder, trained  # noqa: F401  (a fixture)


def trainer_options(save_dir="runs", **logger) -> Namespace:
    named = Namespace(class_path="TensorBoardLogger", init_args=Namespace(save_dir=save_dir, name="manifold", **logger))
    return Namespace(logger=named, default_root_dir=None)


def write_runs(folder: Path, *files: str) -> None:  # noqa: F811
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


@pytest.mark.parametrize(
    ("name", "logger", "file"),
    [
        ("last", {}, "manifold/version_10/checkpoints/last.ckpt"),
        ("best", {}, "manifold/version_9/checkpoints/best.ckpt"),
        ("last", {"version": 9}, "manifold/version_9/checkpoints/last.ckpt"),
        ("last", {"version": "seed_0"}, "manifold/seed_0/checkpoints/last.ckpt"),
    ],
)
def test_the_newest_run_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, logger, file):
    monkeypatch.chdir(tmp_path)
    numbered = [f"runs/manifold/version_{n}/checkpoints/last.ckpt" for n in (2, 9, 10)]
    others = ["runs/manifold/version_9/checkpoints/best.ckpt", "runs/manifold/version_11/config.yaml"]
    others += ["runs/manifold/version_old/checkpoints/last.ckpt", "runs/manifold/seed_0/checkpoints/last.ckpt"]
    write_runs(tmp_path, *numbered, *others)
    assert find_named(name, trainer_options(**logger)) == f"runs/{file}"


@pytest.mark.parametrize(
    ("logger", "folder"), [(False, "."), ([], "."), (None, "lightning_logs"), (True, "lightning_logs")]
)
def test_the_newest_run_without_a_logger_of_one_s_own(tmp_path: Path, logger, folder: str):  # noqa: F811
    file = tmp_path / folder / "version_3" / "checkpoints" / "last.ckpt"
    write_runs(tmp_path, str(file))
    assert find_named("last", Namespace(logger=logger, default_root_dir=str(tmp_path))) == str(file)


def test_the_newest_run_below_a_url_of_this_machine(tmp_path: Path):
    file, other = (tmp_path / run / "checkpoints" / "last.ckpt" for run in ("manifold/version_3", "version_4"))
    write_runs(tmp_path, str(file), str(other))
    assert find_named("last", trainer_options(f"file://{tmp_path}")) == str(file)
    without_logger = Namespace(logger=False, default_root_dir=f"file://{tmp_path}")
    assert find_named("last", without_logger) == str(other)
    assert folder_without_logger(without_logger) == tmp_path / "version_5"


def test_a_name_without_such_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path, "runs/manifold/version_0/checkpoints/last.ckpt")
    place = r"runs/manifold/version_\*/checkpoints/best.ckpt"
    with pytest.raises(InputError, match=f"^--ckpt_path best: there is no {place}; name the file$"):
        find_named("best", trainer_options())


def test_last_goes_on_and_best_is_measured(folder: Path, caplog):  # noqa: F811
    first = trained()
    cli = build_cli(command("fit", "--trainer.max_epochs=2", "--ckpt_path", "last"))
    assert f"--ckpt_path last: {first}/checkpoints/last.ckpt" in caplog.text
    assert (cli.trainer.ckpt_path, cli.trainer.current_epoch) == (f"{first}/checkpoints/last.ckpt", 2)
    for verb in ("validate", "predict"):
        cli = build_cli(command(verb, "--ckpt_path=best", "--model.manifold.width=6"))
        newest = max(Path("runs/manifold").glob("version_*/checkpoints/best.ckpt"))
        assert cli.trainer.ckpt_path == str(newest)


NO_SUCH_RUN = {
    "last": "--ckpt_path last: there is no runs/manifold/version_*/checkpoints/last.ckpt; name the file",
    "best": "--ckpt_path best: there is no runs/manifold/version_*/checkpoints/best.ckpt; name the file",
    "hpc": "--ckpt_path hpc: there is no such name here; use last, best or a file",
}


@pytest.mark.parametrize(
    ("verb", "name"),
    [("fit", "last"), ("fit", "best"), ("fit", "hpc"), ("validate", "last"), ("test", "best"), ("predict", "hpc")],
)
def test_what_no_run_has_is_one_line(folder: Path, capsys, verb, name):  # noqa: F811
    assert NO_SUCH_RUN[name] in error_of(command(verb, f"--ckpt_path={name}"), capsys)
    assert not Path("runs").exists()


def test_a_resumed_run_s_config_measures_and_trains_by_itself(folder: Path, capsys):  # noqa: F811
    first = trained() / "checkpoints" / "last.ckpt"
    build_cli(command("fit", "--trainer.max_epochs=2", f"--ckpt_path={first}"))
    saved = Path("runs/manifold/version_1/config.yaml")
    assert "ckpt_path" not in yaml.safe_load(saved.read_text())
    assert "lightning validate needs --ckpt_path FILE" in error_of(["validate", "-c", str(saved)], capsys)
    assert build_cli(["fit", "-c", str(saved)]).trainer.ckpt_path is None


@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_a_file_that_names_a_checkpoint_is_refused(folder: Path, capsys, verb):  # noqa: F811
    Path("old.yaml").write_text("ckpt_path: runs/other.ckpt")
    Path("mine.yaml").write_text("base: old.yaml")
    for file in ("old.yaml", "mine.yaml"):
        line = error_of(command(verb, "-c", file), capsys)
        assert "error: old.yaml: ckpt_path does not count in a configuration file; add --ckpt_path runs/o" in line
    # The command line's own wins.
    assert "nowhere.ckpt: no such file" in error_of(command(verb, "--ckpt_path=nowhere.ckpt", "-c", "old.yaml"), capsys)


def test_runs_without_a_logger_have_a_folder_each(folder: Path):  # noqa: F811
    for _ in range(2):
        build_cli(command("fit", "--trainer.max_epochs=1", "--trainer.logger=false"))
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    assert {str(path.relative_to("runs")) for path in before} >= {
        f"version_{n}/{file}" for n in (0, 1) for file in ("config.yaml", "checkpoints/best.ckpt")
    }
    build_cli(command("test", "--data.test_split=validation", "--trainer.logger=false", "--ckpt_path=best"))
    assert {path: path.read_bytes() for path in before} == before
    assert Path("runs/version_2/config.yaml").exists()
    assert not {"config.yaml", "checkpoints"} & {path.name for path in Path().iterdir()}


def test_the_folder_of_a_run_without_a_logger(tmp_path: Path):
    options = Namespace(logger=False, default_root_dir=str(tmp_path))
    assert folder_without_logger(options) == tmp_path / "version_0"
    for name in ("version_2", "version_10", "version_x"):
        (tmp_path / name).mkdir()
    assert folder_without_logger(options) == tmp_path / "version_11"
