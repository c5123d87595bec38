"""Checkpoints of ours and of others, read in Python and by the command."""

from pathlib import Path

import pytest
import torch

from lightning_ss2a.checkpoints import FORMAT, architecture_of, encoders_of, other_architecture, read_checkpoint
from lightning_ss2a.cli.lightning import main
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import ManifoldModule
from lightning_ss2a.training.validation.measuring import MeasuringOptions
from tests.manifold_examples import VISUAL_WIDTH, make_data, make_module, make_trainer, write_learnable_pairs
from tests.scene_examples import save_manifold

FOREIGN = {"none": None, "older": {"format": FORMAT - 1}, "newer": {"format": FORMAT + 1}}


def save_as(path: Path, own: dict | None) -> str:
    """A manifold's checkpoint, its part of ours replaced."""
    checkpoint = torch.load(save_manifold(path), weights_only=True)
    del checkpoint["lightning_ss2a"]
    torch.save(checkpoint | ({"lightning_ss2a": own} if own else {}), path)
    return str(path)


@pytest.mark.parametrize("own", FOREIGN.values(), ids=FOREIGN)
def test_a_checkpoint_of_another_format_is_refused_by_name(tmp_path: Path, own: dict | None):
    path = save_as(tmp_path / "foreign.ckpt", own)
    found = own["format"] if own else "none of ours"
    message = rf"foreign.ckpt: its format is {found}, this version reads {FORMAT}; train anew$"
    with pytest.raises(InputError, match=message):
        read_checkpoint(path, "--ckpt_path")
    with pytest.raises(InputError, match=message):
        ManifoldModule.load_from_checkpoint(path)
    data = make_data(write_learnable_pairs(tmp_path / "pairs"))
    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path).fit(make_module(), datamodule=data, ckpt_path=path, weights_only=True)


CHANGED = {
    "number": {"lightning_ss2a": 5},
    "architecture": {"lightning_ss2a": {"format": FORMAT}},
    "options": {"hyper_parameters": {}},
}


@pytest.mark.parametrize("part", CHANGED.values(), ids=CHANGED)
def test_a_checkpoint_that_something_has_changed_is_refused_in_one_line(tmp_path: Path, part: dict):
    path = tmp_path / "changed.ckpt"
    torch.save(torch.load(save_manifold(path), weights_only=True) | part, path)
    with pytest.raises(InputError, match=r"changed.ckpt: (its format is none of ours|lacks the options)"):
        read_checkpoint(str(path), "--ckpt_path")


def test_a_module_made_in_python_is_made_again_from_plain_values(tmp_path: Path):
    path = save_manifold(tmp_path / "manifold.ckpt", dropout=0.3, top_n=3)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"]["manifold"]["projector_widths"] == [16, 16]
    assert architecture_of(checkpoint)["manifold"]["width"] == 12
    again = ManifoldModule.load_from_checkpoint(path, measuring=MeasuringOptions(top_n=5))
    assert again.manifold.options == make_module(dropout=0.3).manifold.options
    assert (again.visual_width, again.measuring) == (VISUAL_WIDTH, MeasuringOptions(top_n=5))


def test_the_command_measures_a_module_made_in_python(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, data = save_manifold(tmp_path / "manifold.ckpt"), write_learnable_pairs(tmp_path / "pairs")
    options = ["--data=ShardDataModule", f"--data.datasets={data}", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    main(["validate", "--model=ManifoldModule", *options, "--trainer.logger=false", f"--ckpt_path={path}"])
    assert "val/ssms" in capsys.readouterr().out


def test_other_architectures_differ_in_named_options():
    ours = {"width": 1, "manifold": {"layers": [1, 2], "variant": "paper"}}
    theirs = {"width": 1, "manifold": {"layers": [1], "variant": "paper"}, "unknown": 3}
    assert list(other_architecture(ours, theirs)) == [("manifold.layers", [1, 2], [1])]


def test_a_checkpoint_names_the_encoders_of_the_data_that_it_was_trained_on(tmp_path: Path):
    trainer = make_trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(make_module(), datamodule=make_data(write_learnable_pairs(tmp_path / "pairs")))
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    trained = read_checkpoint(str(tmp_path / "trained.ckpt"), "checkpoint")
    assert encoders_of(trained) == {"visual": "eye", "audio": "ear"}
    assert encoders_of(read_checkpoint(save_manifold(tmp_path / "made.ckpt"), "checkpoint")) == {}
