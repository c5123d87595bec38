"""The loaders in a real Trainer: resume, epochs, processes."""

import json
import threading
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.loading.loaders import ahead
from tests.data.shards import VISUAL_WIDTH, write_pairs

MEMORY = {"residency": "memory"}
STREAM = {"residency": "stream", "shuffle_rows": 40}
WORKERS = {**STREAM, "num_workers": 1}


class Recorder(LightningModule):
    """Writes down the rows of every batch; trains one layer, so that checkpoints and DDP have something to do."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.layer = nn.Linear(VISUAL_WIDTH, 1)
        self.folder = folder

    def _record(self, stage: str, batch: dict, batch_idx: int) -> None:
        with (self.folder / f"{stage}-{self.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([self.current_epoch, batch_idx, batch["index"].tolist()]) + "\n")

    def training_step(self, batch, batch_idx):
        self._record("train", batch, batch_idx)
        return self.layer(batch["visual"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self._record("validation", batch, batch_idx)

    def test_step(self, batch, batch_idx):
        self._record("test", batch, batch_idx)

    def predict_step(self, batch, batch_idx):
        self._record("predict", batch, batch_idx)
        return batch["key"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


class KilledError(RuntimeError):
    pass


class KillAt(Callback):
    """Ends the run like a crash, after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.batches:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "killed.ckpt")
            raise KilledError


def trainer(folder: Path, **options) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 3,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **options})


def data(path: str, **options) -> ShardDataModule:
    return ShardDataModule(path, **{"batch_size": 16, "evaluation_batch_size": 5, **options})


def records(folder: Path, stage: str = "train", rank: int = 0) -> list:
    return [json.loads(line) for line in (folder / f"{stage}-{rank}.jsonl").read_text().splitlines()]


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("place", [MEMORY, STREAM, WORKERS], ids=["memory", "stream", "workers"])
def test_resume_after_any_batch_goes_on_with_the_next_unseen_batch(tmp_path: Path, place):
    path, whole = write_pairs(tmp_path / "shards"), new(tmp_path / "whole")
    trainer(whole).fit(Recorder(whole), datamodule=data(path, **place))
    expected = records(whole)
    assert [(epoch, batch) for epoch, batch, _ in expected] == [(e, b) for e in range(3) for b in range(6)]
    for batches in (1, 3, 6, 8, 12) if place is not WORKERS else (8,):
        folder = new(tmp_path / f"stop{batches}")
        with pytest.raises(KilledError):
            trainer(folder, callbacks=[KillAt(batches)]).fit(Recorder(folder), datamodule=data(path, **place))
        resumed = trainer(folder)
        resumed.fit(Recorder(folder), datamodule=data(path, **place), ckpt_path=folder / "killed.ckpt")
        assert records(folder) == expected
        assert resumed.current_epoch == 3


def test_resume_from_the_end_of_an_epoch_and_with_more_epochs(tmp_path: Path):
    path, whole, folder = write_pairs(tmp_path / "shards"), new(tmp_path / "whole"), new(tmp_path / "parts")
    trainer(whole).fit(Recorder(whole), datamodule=data(path, **STREAM))
    for epochs in (1, 2, 3):
        last = folder / "end.ckpt"
        fit = trainer(folder, max_epochs=epochs)
        fit.fit(Recorder(folder), datamodule=data(path, **STREAM), ckpt_path=last if last.exists() else None)
        fit.save_checkpoint(last)
    assert records(folder) == records(whole)


def test_resume_from_a_checkpoint_of_the_validation_in_the_middle_of_an_epoch(tmp_path: Path):
    path, folder, again = write_pairs(tmp_path / "shards"), new(tmp_path / "run"), new(tmp_path / "again")
    checkpoint = ModelCheckpoint(dirpath=folder, filename="{step}", save_top_k=-1)
    options = {"val_check_interval": 0.5, "enable_checkpointing": True}
    trainer(folder, **options, callbacks=[checkpoint]).fit(Recorder(folder), datamodule=data(path, **MEMORY))
    expected = records(folder)
    for step in (3, 6, 9):
        (again / "train-0.jsonl").unlink(missing_ok=True)
        resume = {"val_check_interval": 0.5, "max_epochs": 3}
        trainer(again, **resume).fit(
            Recorder(again), datamodule=data(path, **MEMORY), ckpt_path=folder / f"step={step}.ckpt"
        )
        assert records(again) == expected[step:]


def test_limits_and_steps_mean_what_lightning_says(tmp_path: Path):
    path, folder = write_pairs(tmp_path / "shards"), new(tmp_path / "run")
    fit = trainer(folder, limit_train_batches=2, max_epochs=2)
    fit.fit(Recorder(folder), datamodule=data(path, **MEMORY))
    assert [(epoch, batch) for epoch, batch, _ in records(folder)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    folder = new(tmp_path / "steps")
    fit = trainer(folder, max_steps=8, max_epochs=-1)
    fit.fit(Recorder(folder), datamodule=data(path, **STREAM))
    assert fit.num_training_batches == 6
    assert [(epoch, batch) for epoch, batch, _ in records(folder)] == [*((0, b) for b in range(6)), (1, 0), (1, 1)]


def test_a_loader_goes_round_again_after_the_trainer_is_done(tmp_path: Path):
    module = data(write_pairs(tmp_path / "shards"), **MEMORY)
    trainer(tmp_path, max_epochs=1).fit(Recorder(tmp_path), datamodule=module)
    assert len(list(module.train_dataloader())) == 6


@pytest.mark.parametrize("place", [MEMORY, STREAM], ids=["memory", "stream"])
def test_two_processes_share_every_global_batch_and_validate_every_row_once(tmp_path: Path, place):
    path, one, two = write_pairs(tmp_path / "shards"), new(tmp_path / "one"), new(tmp_path / "two")
    trainer(one, max_epochs=2).fit(Recorder(one), datamodule=data(path, **place))
    distributed = trainer(two, max_epochs=2, devices=2, strategy="ddp_fork", num_sanity_val_steps=0)
    distributed.fit(Recorder(two), datamodule=data(path, **place))
    ranks = [records(two, rank=rank) for rank in range(2)]
    joined = [[*a[:2], a[2] + b[2]] for a, b in zip(*ranks, strict=True)]
    assert joined == records(one)
    validated = [records(two, "validation", rank) for rank in range(2)]
    assert [len(rows) for *_, rows in validated[0][:3]] == [5, 5, 3]
    assert [len(rows) for *_, rows in validated[1][:3]] == [5, 5, 0]
    seen = [row for rank in validated for epoch, _, rows in rank if epoch == 0 for row in rows]
    assert sorted(seen) == list(range(23))


def test_test_and_predict(tmp_path: Path):
    path = write_pairs(tmp_path / "shards", {"train": 20, "validation": 8, "test": 7})
    trainer(tmp_path).test(Recorder(tmp_path), datamodule=data(path, **MEMORY))
    assert [row for *_, rows in records(tmp_path, "test") for row in rows] == list(range(7))
    keys = trainer(tmp_path).predict(Recorder(tmp_path), datamodule=data(path, **STREAM))
    assert [key for batch in keys for key in batch] == [f"row{i}" for i in range(36) if i != 35]


def test_ahead_keeps_order_and_passes_errors_on():
    assert list(ahead(lambda x: x * x, range(5))) == [0, 1, 4, 9, 16]
    assert list(ahead(abs, [])) == []
    assert list(ahead(lambda x: x * x, range(5), threads=3)) == [0, 1, 4, 9, 16]
    results = ahead(lambda x: 1 // x, [1, 0])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_after_an_error_ahead_begins_nothing_and_its_thread_ends():
    before, begun, threads = set(threading.enumerate()), [], set()

    def invert(x: int) -> int:
        begun.append(x)
        threads.update(set(threading.enumerate()) - before)
        return 1 // x

    with pytest.raises(ZeroDivisionError) as error:
        list(ahead(invert, [1, 0, 2]))
    (thread,) = threads
    thread.join(timeout=60)
    assert not thread.is_alive()  # though the error, which refers to the pool, is still here
    assert error.traceback
    assert begun == [1, 0]


def test_leaving_ahead_early_waits_for_nothing_and_its_thread_ends():
    before, go_on = set(threading.enumerate()), threading.Event()
    results = ahead(lambda x: x == 0 or go_on.wait(timeout=60), range(5))
    assert next(results)
    (thread,) = set(threading.enumerate()) - before
    # The garbage collector may do this in a thread that holds locks; to wait for another thread would be for ever.
    results.close()
    assert thread.is_alive()
    go_on.set()
    thread.join(timeout=60)
    assert not thread.is_alive()
