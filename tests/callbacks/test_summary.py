"""RunSummary: the table, its best epochs, and the commands that it prints."""

import math
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from lightning_ss2a.callbacks import RunSummary
from lightning_ss2a.callbacks.summary import better_of, metrics, next_commands, summary_table
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs

SERIES = {
    "val/ssms": [1.0, 3.0, 2.0, 3.0, math.nan],
    "val/median_rank/visual_to_audio": [9.0, 4.0, 2.0, 2.5, math.nan],
    "val/modality_gap": [0.5, 0.2, 0.4, 0.1, 0.3],
    "val/clip_score": [math.nan, -3.0, -2.0, -1.0, -4.0],
}


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    return write_learnable_pairs(tmp_path / "pairs")


def cells(table) -> list[list[str]]:
    console = Console(width=200, file=None)
    with console.capture() as capture:
        console.print(table)
    lines = capture.get().splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_best_values_and_epochs_of_a_series():
    best = {}
    for epoch in range(5):
        logged = {name: values[epoch] for name, values in SERIES.items()}
        logged |= {"train/loss": 9.0 - epoch, "val/ssms_baseline/ridge": 8.0, "epoch": epoch}
        best = better_of(best, metrics(logged, "val/"), epoch)
    assert best == {
        "val/ssms": (3.0, 1),  # the first of equals
        "val/median_rank/visual_to_audio": (2.0, 2),  # lower is better
        "val/modality_gap": (0.1, 3),
        "val/clip_score": (-1.0, 3),  # NaN at first must not win
    }


def test_the_table_shows_last_best_epoch_and_each_baseline():
    last = {"val/ssms": 2.5, "val/ssms_baseline/chance": 1.0, "val/ssms_baseline/ridge": 3.25, "train/loss": 0.1}
    rows = cells(summary_table({"val/ssms": (3.0, 7), "val/gone": (1.0, 0)}, last))
    assert rows == [["gone", "", "1.000", "0", "", ""], ["ssms", "2.500", "3.000", "7", "1.000", "3.250"]]


def test_the_best_values_of_a_run_are_those_that_its_logger_wrote(tmp_path: Path, dataset, capsys):
    logger = CSVLogger(tmp_path, name="run", version=0)
    summary = RunSummary()
    trainer = make_trainer(tmp_path, logger=logger, callbacks=[summary], max_epochs=4)
    trainer.fit(make_module(), datamodule=make_data(dataset))
    lines = (tmp_path / "run" / "version_0" / "metrics.csv").read_text().splitlines()
    head = lines[0].split(",")
    table = [dict(zip(head, line.split(","), strict=True)) for line in lines[1:]]
    for name in ("val/ssms", "val/median_rank/visual_to_audio", "val/modality_gap"):
        series = [(float(row[name]), int(row["epoch"])) for row in table if row[name]]
        assert len(series) == 4
        wanted = min if name != "val/ssms" else max
        value, epoch = wanted(series, key=lambda pair: pair[0])
        assert summary._best[name] == (pytest.approx(value, rel=1e-5), epoch)
    printed = capsys.readouterr().out
    assert "train/" not in printed
    assert f"tensorboard --logdir {tmp_path}/run/version_0" in printed


def test_a_resumed_run_keeps_what_came_before(tmp_path: Path, dataset, capsys):
    """Also where no validation is left for it."""
    first = RunSummary()
    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
    trainer = make_trainer(tmp_path, callbacks=[first, checkpoint], enable_checkpointing=True, max_epochs=1)
    trainer.fit(make_module(), datamodule=make_data(dataset))
    last = tmp_path / "checkpoints" / "last.ckpt"
    resumed = RunSummary()
    trainer = make_trainer(tmp_path, callbacks=[resumed], max_epochs=2, limit_val_batches=0)
    trainer.fit(make_module(), datamodule=make_data(dataset), ckpt_path=last)
    assert first._best
    assert resumed._best == first._best
    capsys.readouterr()
    resumed.on_fit_end(trainer, trainer.lightning_module)
    (ssms,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ ssms ")]
    _, last, best, *baselines = [cell.strip() for cell in ssms.strip("│").split("│")]
    assert last == best
    assert all(baselines)


def test_no_validation_no_table(tmp_path: Path, dataset, capsys):
    trainer = make_trainer(tmp_path, callbacks=[RunSummary()], max_epochs=1, check_val_every_n_epoch=5)
    trainer.fit(make_module(), datamodule=make_data(dataset))
    assert capsys.readouterr().out.strip() == ""  # no logger, no checkpoint, no validation: nothing to say


def test_without_a_validation_the_newest_checkpoint_is_named(tmp_path: Path, dataset, capsys):
    saving = [
        ModelCheckpoint(tmp_path, "best", monitor="val/ssms"),
        ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True),
    ]
    options = {"enable_checkpointing": True, "max_epochs": 1, "check_val_every_n_epoch": 5}
    trainer = make_trainer(tmp_path, callbacks=[*saving, RunSummary()], **options)
    trainer.fit(make_module(), datamodule=make_data(dataset))
    assert f"Checkpoint: {tmp_path}/last.ckpt" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_an_evaluation_prints_its_values_beside_their_baselines(tmp_path: Path, dataset, capsys, stage):
    data = make_data(dataset, test_split="validation")
    module, trainer = make_module(), make_trainer(tmp_path, callbacks=[RunSummary()], max_epochs=1)
    trainer.fit(module, datamodule=data)
    capsys.readouterr()
    getattr(trainer, stage)(module, datamodule=data, verbose=False)
    prefix = {"validate": "val/", "test": "test/"}[stage]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in printed}
    assert rows.keys() == {n.removeprefix(prefix) for n in metrics(trainer.callback_metrics, prefix)}
    value, chance, _, ridge, ridge_ssms = (float(cell) if cell.strip() else None for cell in rows["ssms"])
    logged = trainer.callback_metrics
    assert value == pytest.approx(float(logged[f"{prefix}ssms"]), abs=6e-4)
    assert chance == pytest.approx(float(logged[f"{prefix}ssms_baseline/chance"]), abs=6e-4)
    assert ridge == pytest.approx(float(logged[f"{prefix}ssms_baseline/ridge"]), abs=6e-4)
    assert ridge_ssms == pytest.approx(float(logged[f"{prefix}ssms_baseline/ridge_ssms"]), abs=6e-4)


def saved(best: str = "", last: str = "", monitor: str | None = "val/ssms", score: float | None = 3.0):
    """What a ModelCheckpoint knows, and its files."""
    for path in filter(None, (best, last)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    return SimpleNamespace(best_model_path=best, last_model_path=last, monitor=monitor, best_model_score=score)


def test_commands_can_be_pasted_whatever_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = Path("runs/my runs; rm -rf/config.yaml")
    config.parent.mkdir(parents=True)
    config.touch()
    checkpoint = saved("runs/my runs/b.ckpt", "l.ckpt")
    lines = next_commands("runs/my runs; rm -rf", checkpoint, best={"val/ssms": (3.0, 1)})
    assert lines[0] == "Checkpoint (best val/ssms): runs/my runs/b.ckpt"
    for line, verb in zip(lines[1:3], ("test", "predict"), strict=True):
        words = shlex.split(line.partition(":  ")[2])
        assert words == ["lightning", verb, "-c", str(config), "--ckpt_path", "runs/my runs/b.ckpt"]
    assert shlex.split(lines[3].partition(":  ")[2]) == ["tensorboard", "--logdir", "runs/my runs; rm -rf"]


def test_commands_claim_nothing_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert next_commands("runs", None) == ["Look at it:  tensorboard --logdir runs"]
    assert next_commands("runs", None, with_logger=False) == []
    unmonitored = saved("b.ckpt", "l.ckpt", monitor=None, score=None)
    assert next_commands("runs", unmonitored)[0] == "Checkpoint: b.ckpt"
    assert next_commands("runs", unmonitored)[1] == "Measure it:  lightning test -c CONFIG --ckpt_path b.ckpt"
    assert next_commands("runs", saved(last="l.ckpt", score=None))[0] == "Checkpoint: l.ckpt"
    not_the_best = next_commands("runs", saved("b.ckpt"), best={"val/ssms": (4.0, 1)})
    assert not_the_best[0] == "Checkpoint (val/ssms 3.000): b.ckpt"
    gone = saved("b.ckpt", "l.ckpt")
    Path("b.ckpt").unlink()
    assert next_commands("runs", gone)[0] == "Checkpoint: l.ckpt"
    Path("l.ckpt").unlink()
    assert next_commands("runs", gone) == ["Look at it:  tensorboard --logdir runs"]
