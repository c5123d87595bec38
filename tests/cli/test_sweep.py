"""``ss2a sweep`` with bad input: one line, exit status 2, and a correct call goes through afterwards."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ss2a.cli.ss2a import main
from tests.integration.sweeps import COSINE, GRID, KIND, study, sweep, write_base, write_sweep


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a base configuration."""
    monkeypatch.chdir(tmp_path)
    return write_base(tmp_path)


def error_of(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The one line that a sweep prints which is refused before any process starts."""
    with pytest.raises(SystemExit) as exit_:
        main(["sweep", "-c", "sweep.yaml", *arguments])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ss2a: error: ")
    assert not Path("runs/sweeps/grid/sweep.yaml").exists()
    return line


X = {"model.kl_weight": {"choices": [0.1, 0.2]}}
RANGE = {"model.kl_weight": {"low": 0.1, "high": 0.2}}
FREE: dict[str, Any] = {"sampler": "RandomSampler", "trials": 2, "parameters": RANGE}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name: a sweep needs one, of letters, digits"),
        ({"name": "a/b"}, "name: a sweep needs one"),
        ({"base": ""}, "base is missing: name a YAML file of lightning fit"),
        ({"base": "bse.yaml"}, "; did you mean base.yaml?"),
        ({"base": "no.yaml"}, "base: no.yaml is no file relative to "),
        ({"base": "a", "bases": {"a": {"configs": ["bse.yaml"]}}}, "bases.a.configs: bse.yaml is no file relative to "),
        ({"parameters": {}}, "the search space is empty"),
        ({"parameters": {"model.kl_weight": {"choices": []}}}, "s.model.kl_weight: the list of choices is empty"),
        ({"parameters": RANGE}, "parameters.model.kl_weight: a grid needs choices, or a range with step"),
        ({"sampler": "TPESampler"}, "trials is missing: sampler TPESampler has no end"),
        ({**FREE, "sampler": "TPSampler"}, "no class TPSampler in optuna.samplers; did you mean TPES"),
        ({"workers": 0}, "workers is 0, needs at least 1"),
        ({"retries": -1}, "retries is -1, needs at least 0"),
        ({"seeds": 0}, "seeds, repeats: no run is left of a trial"),
        ({"seeds": [1, 1]}, "seeds, repeats: two runs of a trial are the same"),
        ({"max_minutes": 0}, "max_minutes is 0"),
        ({"max_trial_minutes": -1}, "max_trial_minutes is -1"),
        ({"max_silent_minutes": math.nan}, "max_silent_minutes is nan, needs a time above 0"),
        ({"name": "x" * 300}, "name: is the name of a folder, too: 300 letters are above 200"),
        ({"repeats": {"data.text": ["x" * 300]}}, "a run's folder is named by its values, which are 312 letters"),
        ({**FREE, "parameters": {"model.kl_weight": {"low": 0.1, "high": math.inf}}}, "low, high and step need to"),
        ({**FREE, "parameters": {"model.kl_weight": {"low": math.nan, "high": 1.0}}}, "low, high and step need to be"),
        ({"parameters": {"model.kl_weight": {"low": 0, "high": 1, "step": math.inf}}}, "step need to be finite; they"),
        ({"direction": ["maximize", "minimize"]}, "direction: 1 metrics need as many directions"),
        ({"metric": ["a", "a"]}, "metric: needs one or several different names"),
        ({"metric": ["a", "b"], "pruner": "MedianPruner"}, "pruner: MedianPruner needs one metric, there are 2"),
        ({"pruner": "MedianPruner", "command": "test"}, "pruner: only training can be stopped early"),
        ({"pruner": "ThresholdPruner"}, "pruner: ThresholdPruner: Either lower or upper must be specified"),
        ({"pruner": {"class_path": "MedianPruner", "init_args": {"n_warmup": 1}}}, "did you mean n_warmup_steps?"),
        ({**FREE, "sampler": {"class_path": "RandomSampler", "init_args": {"seeed": 1}}}, "did you mean seed?"),
        ({**FREE, "sampler": "CmaEsSampler"}, "sampler CmaEsSampler: No module named 'cmaes'"),
        ({**FREE, "sampler": "CmaEsSampler", "metric": ["a", "b"]}, "multi-objective optimization, CmaEsSampler can"),
        ({**FREE, "first": [{"model.kl_wieght": 1}]}, "first[0]: model.kl_wieght is no parameter of this sweep; did"),
        ({**FREE, "first": [{"model.kl_weight": 1}]}, "first[0]: model.kl_weight is 1, needs 0.1 to 0.2"),
        ({"overrides": {"model.kl_weight": 0.1}}, "overrides: model.kl_weight is a parameter; choose one"),
        ({"overrides": {"seed_everything": 3}}, "overrides: seed_everything has no effect, it is repeated over"),
        ({"repeats": {"model.kl_weight": [0.1]}}, "model.kl_weight is both a parameter and repeated over"),
        ({"overrides": {"data.datasets": "{wrold}"}}, "overrides.data.datasets: {wrold} stands for nothing"),
        ({"prepare": {"world": "rm -r {output}"}}, "prepare.world: a command begins with lightning or ss2a"),
        ({"prepare": {"seed": "ss2a shards"}}, "prepare.seed: the name is taken"),
        ({"prepare": {"a": "ss2a {b}", "b": "ss2a {a}"}}, "prepare.a: waits for itself, through a and b"),
        ({"trails": 3}, "did you mean trials?"),
        ({"paramters": X}, "paramters"),
        ({"storage": "nowhere/x.journal"}, "storage: nowhere is no folder; make it first"),
        ({"storage": "postgres"}, "storage postgres: not reachable: "),
        ({"storage": "sqlite:///no/such/folder/x.db"}, "not reachable: unable to open database file"),
        ({"storage": "nodriver://me:secret@host/db"}, "storage nodriver://me@host/db: not reachable: "),
    ],
)  # fmt: skip
def test_what_is_refused_at_once(folder: Path, capsys, options, message):
    write_sweep(folder, {**GRID, "parameters": X, **options})
    line = error_of(capsys)
    assert message in line
    assert "secret" not in line


def test_gpus_that_are_not_there(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    write_sweep(folder, {**GRID, "parameters": X})
    with pytest.raises(SystemExit):
        main(["sweep", "-c", "sweep.yaml", "--workers=3", "--gpus_per_worker=1"])
    assert "workers: 3 with 1 GPUs each need 3, CUDA_VISIBLE_DEVICES names 2" in capsys.readouterr().err


def test_without_optuna(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    write_sweep(folder, {**GRID, "parameters": X})
    assert "sweeps need Optuna: pip install 'lightning-ss2a[sweep]'" in error_of(capsys)


def test_a_folder_of_something_else(folder: Path, capsys):
    (folder / "runs/sweeps/grid").mkdir(parents=True)
    (folder / "runs/sweeps/grid/notes.txt").touch()
    write_sweep(folder, {**GRID, "parameters": X})
    assert "holds files of something else; take another --name, or another --folder" in error_of(capsys)


def test_a_missing_or_broken_file(folder: Path, capsys):
    for text in (None, "name: [", "just text"):
        if text is not None:
            (folder / "sweep.yaml").write_text(text)
        assert "sweep.yaml" in error_of(capsys)


def refused(folder: Path, **options: Any) -> str:
    """The error line of a sweep that its check refuses."""
    write_sweep(folder, {**GRID, "parameters": X, **options})
    printed = sweep(folder, status=2)
    (line,) = [line for line in printed.splitlines() if "error" in line]
    assert line.startswith("ss2a: error: ")
    assert "running; 1 worker here" in printed.splitlines()[0]
    return line


@pytest.mark.slow
def test_what_the_check_refuses_and_that_a_mended_file_runs(folder: Path):
    root = folder / "runs/sweeps/grid"
    line = refused(folder, parameters={"model.kl_wieght": {"choices": [0.1, 0.2]}})
    assert "did you mean model.kl_weight?" in line
    assert f"all output: {root.relative_to(folder)}/check/output.log" in line
    line = refused(folder, parameters={"model.kl_weight": {"choices": [0.1, "much"]}})
    assert "much" in line
    line = refused(folder, parameters={"trainer.callbacks.Trouble.sleeep": {"choices": [0.1]}})
    assert "did you mean" in line
    line = refused(folder, metric="val/reconstruction_cosin")
    assert f"metric: a run never logs val/reconstruction_cosin; did you mean {COSINE}? (it logs " in line
    line = refused(folder, overrides={"data.datasets": "nowhere"})
    assert "nowhere/manifest.json: missing" in line
    line = refused(folder, overrides={KIND: "wrong"})
    assert "a width of 3 makes no sense" in line
    assert not (root / "trials").exists()
    write_sweep(folder, {**GRID, "parameters": X})
    assert "2 of 2 done" in sweep(folder)
    assert [trial.params for trial in study(folder).trials] == [{"model.kl_weight": 0.1}, {"model.kl_weight": 0.2}]
    assert yaml.safe_load((root / "sweep.yaml").read_text())["metric"] == COSINE


@pytest.mark.slow
def test_a_sweep_of_which_no_trial_ends_well(folder: Path):
    write_sweep(folder, {**GRID, "parameters": {KIND: {"choices": ["none", "wrong"]}}})
    (folder / "troubles.py").write_text(
        (folder / "troubles.py").read_text().replace('if self.kind == "wrong"', "if not trainer.fast_dev_run")
    )
    printed = sweep(folder, status=1)
    assert "0 of 2 done, 0 running, 2 failed" in printed
    assert printed.count("a width of 3 makes no sense") == 2
