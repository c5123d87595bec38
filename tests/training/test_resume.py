"""The best of a run that was resumed is the best of all its epochs, and its file is there."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ss2a.callbacks import RunSummary
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs

SCORES = (1.0, 3.0, 2.0)
"""Of the epochs before a resume."""


class Judge(Callback):
    """Logs a known score in each validation."""

    def __init__(self, scores: tuple[float, ...]) -> None:
        self.scores = scores

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        pl_module.log("val/score", torch.tensor(self.scores[trainer.current_epoch]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_pairs(tmp_path_factory.mktemp("pairs"))


def fit(folder: Path, dataset: str, scores: tuple[float, ...], ckpt_path: Path | None = None, keep: int = 1):
    """Trains an epoch for each score, or those after a checkpoint; keeps the best and the last."""
    name = "best" if keep == 1 else "{epoch}"
    options = {"enable_version_counter": False}
    best = ModelCheckpoint(folder, name, monitor="val/score", mode="max", save_top_k=keep, **options)
    last = ModelCheckpoint(folder, "last", every_n_epochs=1, save_on_train_epoch_end=True, **options)
    callbacks = [Judge(scores), best, last, RunSummary()]
    trainer = make_trainer(folder, callbacks=callbacks, enable_checkpointing=True, max_epochs=len(scores))
    trainer.fit(make_module(), datamodule=make_data(dataset), ckpt_path=ckpt_path)
    return best


def epoch_of(path: str) -> int:
    return torch.load(path, weights_only=True)["epoch"]


@pytest.fixture
def first(tmp_path: Path, dataset: str, capsys) -> Path:
    """Folder of a run whose best epoch is the second of three."""
    fit(tmp_path / "first", dataset, SCORES)
    assert f"Checkpoint (best val/score): {tmp_path}/first/best.ckpt" in capsys.readouterr().out
    return tmp_path / "first"


@pytest.mark.parametrize(("new", "folder", "epoch"), [(2.5, "first", 1), (3.5, "second", 3)])
def test_the_best_of_all_epochs_is_named_where_it_is(tmp_path: Path, dataset, first, capsys, new, folder, epoch):
    best = fit(tmp_path / "second", dataset, (*SCORES, new), first / "last.ckpt")
    assert best.best_model_path == str(tmp_path / folder / "best.ckpt")
    assert float(best.best_model_score) == max(*SCORES, new)
    assert epoch_of(best.best_model_path) == epoch
    assert epoch_of(first / "best.ckpt") == 1
    assert f"Checkpoint (best val/score): {best.best_model_path}" in capsys.readouterr().out


def test_a_best_file_that_is_gone_is_not_named(tmp_path: Path, dataset, first, capsys):
    (first / "best.ckpt").unlink()
    best = fit(tmp_path / "second", dataset, (*SCORES, 2.5), first / "last.ckpt")
    assert best.best_model_path == str(tmp_path / "second" / "best.ckpt")
    assert f"Checkpoint (val/score 2.500): {best.best_model_path}" in capsys.readouterr().out
    gone = fit(tmp_path / "third", dataset, SCORES, first / "last.ckpt")  # nothing is left to train
    assert gone.best_model_path == ""


def test_a_best_file_that_holds_a_later_model_is_not_taken_for_it(tmp_path: Path, dataset, first):
    earlier = first / "last.ckpt"
    copy = earlier.rename(tmp_path / "earlier.ckpt")
    fit(first, dataset, (*SCORES, 9.0), copy)  # goes on in the same folder
    assert epoch_of(first / "best.ckpt") == 3
    best = fit(tmp_path / "second", dataset, (*SCORES, 2.5), copy)
    assert (best.best_model_path, float(best.best_model_score)) == (str(tmp_path / "second" / "best.ckpt"), 2.5)


def test_a_run_whose_folder_was_moved_finds_its_best(tmp_path: Path, dataset, first):
    moved = first.rename(tmp_path / "moved")
    best = fit(tmp_path / "second", dataset, (*SCORES, 2.5), moved / "last.ckpt")
    assert best.best_model_path == str(moved / "best.ckpt")


def test_the_best_of_several_are_carried_over(tmp_path: Path, dataset):
    fit(tmp_path / "first", dataset, SCORES, keep=2)
    best = fit(tmp_path / "second", dataset, (*SCORES, 2.5, 1.0), tmp_path / "first" / "last.ckpt", keep=2)
    assert {Path(path).name: float(score) for path, score in best.best_k_models.items()} == {
        "epoch=1.ckpt": 3.0,
        "epoch=3.ckpt": 2.5,
    }
    assert all(Path(path).is_file() for path in best.best_k_models)
    assert (tmp_path / "first" / "epoch=2.ckpt").is_file()  # another run's is not removed
