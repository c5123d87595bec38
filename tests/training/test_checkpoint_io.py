"""Checkpoints that the trainer writes and reads: whole or not at all, undamaged or refused."""

import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ss2a.checkpoints import read_checkpoint
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import ManifoldModule
from lightning_ss2a.training.checkpoint_io import WholeCheckpointIO
from tests.limits import largest_file
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_pairs(tmp_path_factory.mktemp("pairs"))


def fit(folder: Path, dataset: str, ckpt_path: Path | str | None = None, **options: Any) -> Trainer:
    """Trains an epoch, or two where a checkpoint of the first is resumed; keeps ``checkpoints/last.ckpt``."""
    last = ModelCheckpoint(folder / "checkpoints", "last", enable_version_counter=False)
    options = {"callbacks": [last], "enable_checkpointing": True, "max_epochs": 2 if ckpt_path else 1, **options}
    fit_options = {name: options.pop(name) for name in ("weights_only",) if name in options}
    trainer = make_trainer(folder, **options)
    trainer.fit(make_module(), datamodule=make_data(dataset), ckpt_path=ckpt_path, **fit_options)
    return trainer


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory, dataset: str) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    fit(folder, dataset)
    return folder / "checkpoints" / "last.ckpt"


def damaged(path: Path, copy: Path, at: int) -> Path:
    """A copy with one flipped bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    copy.write_bytes(content)
    return copy


def bytes_of_weights(path: Path) -> int:
    """Where the bytes of a weight stand in a checkpoint."""
    weight = torch.load(path, weights_only=True)["state_dict"]["manifold.visual_projector.blocks.0.layers.0.0.weight"]
    return path.read_bytes().index(weight.numpy().tobytes())


def test_every_run_of_ours_writes_whole_checkpoints_unless_it_has_a_way_of_its_own(tmp_path: Path, dataset: str):
    class Own(TorchCheckpointIO):
        pass

    assert type(fit(tmp_path, dataset).strategy.checkpoint_io) is WholeCheckpointIO
    assert type(fit(tmp_path, dataset, plugins=[Own()]).strategy.checkpoint_io) is Own


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_is_named(tmp_path: Path, dataset: str):
    (tmp_path / "checkpoints").touch()  # a folder that cannot be written to, for root too
    with pytest.raises(OSError, match=r"'.*/checkpoints'$"):
        fit(tmp_path, dataset)


def test_a_checkpoint_that_grows_too_large_leaves_the_old_one(tmp_path: Path, dataset: str, last: Path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    path.write_bytes(last.read_bytes())
    with largest_file(10_000), pytest.raises(OSError, match=r"File too large: '.*last\.ckpt'"):
        fit(tmp_path, dataset, path)
    assert path.read_bytes() == last.read_bytes()
    assert list(path.parent.iterdir()) == [path]


def test_flipped_bits_of_weights_are_not_trained_on(tmp_path: Path, dataset: str, last: Path):
    path = damaged(last, tmp_path / "flipped.ckpt", bytes_of_weights(last))
    torch.load(path, weights_only=True)  # torch takes it
    message = r"checkpoint .*flipped\.ckpt: damaged, the checksum of '.*/data/\d+' in it does not fit; use another"
    with pytest.raises(InputError, match=message):
        fit(tmp_path, dataset, path)
    with pytest.raises(InputError, match=message):
        read_checkpoint(str(path), "checkpoint")
    with pytest.raises(InputError, match=message):
        ManifoldModule.load_from_checkpoint(path)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_off_is_refused(tmp_path: Path, dataset: str, last: Path, part: float):
    path = tmp_path / "cut.ckpt"
    path.write_bytes(last.read_bytes()[: int(part * last.stat().st_size)])
    with pytest.raises(InputError, match=r"cut\.ckpt: not a checkpoint of Lightning, or a damaged one"):
        fit(tmp_path, dataset, path)


class Malicious:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("weights_only", [None, False])
def test_nothing_is_unpickled_even_if_asked_to(tmp_path: Path, dataset: str, last: Path, weights_only: bool | None):
    checkpoint = torch.load(last, weights_only=True) | {"extra": Malicious(tmp_path / "run")}
    torch.save(checkpoint, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match=r"more than tensors and plain values, which is never unpickled") as error:
        fit(tmp_path, dataset, tmp_path / "evil.ckpt", weights_only=weights_only)
    assert isinstance(error.value.__cause__, pickle.UnpicklingError)
    assert not (tmp_path / "run").exists()


def test_checkpoints_at_urls_pass_the_same_checks(tmp_path: Path, dataset: str, last: Path):
    memory = fsspec.filesystem("memory")
    trainer = fit(tmp_path, dataset, f"file://{last}")
    trainer.save_checkpoint("memory://runs/end.ckpt")
    again = read_checkpoint("memory://runs/end.ckpt", "checkpoint")
    assert again["global_step"] == trainer.global_step > 0
    weights = ManifoldModule.load_from_checkpoint("memory://runs/end.ckpt").state_dict()
    assert all(torch.equal(weights[name], x) for name, x in trainer.lightning_module.state_dict().items())
    flipped = damaged(last, tmp_path / "flipped.ckpt", bytes_of_weights(last))
    memory.pipe_file("/runs/flipped.ckpt", flipped.read_bytes())
    with pytest.raises(InputError, match=r"checkpoint memory://runs/flipped\.ckpt: damaged"):
        fit(tmp_path, dataset, "memory://runs/flipped.ckpt")
    with pytest.raises(InputError, match=r"checkpoint memory://runs/none\.ckpt: cannot be read"):
        fit(tmp_path, dataset, "memory://runs/none.ckpt")
    with pytest.raises(InputError, match=r"checkpoint file:///none\.ckpt: no such file"):
        fit(tmp_path, dataset, "file:///none.ckpt")
