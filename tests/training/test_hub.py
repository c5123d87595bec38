"""A checkpoint as a folder for a hub, and back."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lightning_ss2a.callbacks import EMATeacher
from lightning_ss2a.checkpoints import read_checkpoint
from lightning_ss2a.errors import InputError
from lightning_ss2a.training import ManifoldModule, RemixerModule
from lightning_ss2a.training.hub import CARD, OPTIONS, STATISTICS, WEIGHTS, export_checkpoint, import_folder
from tests.manifold_examples import make_data, make_module, make_trainer, write_learnable_pairs
from tests.scene_examples import make_aggregation, make_mapper, make_remixer, make_translator, save_manifold


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A manifold with the statistics of its training split and a teacher."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(folder, max_epochs=2, callbacks=[EMATeacher(teacher_epochs=1)])
    trainer.fit(make_module(), datamodule=make_data(write_learnable_pairs(folder / "pairs")))
    trainer.save_checkpoint(folder / "trained.ckpt")
    return str(folder / "trained.ckpt")


def assert_same(first: dict, second: dict) -> None:
    """Weights, options and statistics, bit for bit."""
    for name in ("hyper_parameters", "lightning_ss2a"):
        assert first[name] == second[name]
        assert json.dumps(first[name]) == json.dumps(second[name])
    for name in ("state_dict", "training_statistics"):
        assert list(first.get(name, {})) == list(second.get(name, {}))
        for key, tensor in first.get(name, {}).items():
            assert tensor.dtype == second[name][key].dtype
            assert torch.equal(tensor, second[name][key]), key


def test_there_and_back_changes_no_bit(trained: str, tmp_path: Path):
    weights = export_checkpoint(trained, tmp_path / "folder", "apache-2.0")
    path = import_folder(str(tmp_path / "folder"), tmp_path / "back")
    assert path == tmp_path / "back" / "manifold.ckpt"
    before, after = (read_checkpoint(str(file), "checkpoint") for file in (trained, path))
    assert_same(before, after)
    assert weights.keys() == before["state_dict"].keys()
    assert any(name.startswith("teacher.") for name in after["state_dict"])
    assert "training_statistics" in after
    assert (after["epoch"], after["global_step"]) == (0, 0)
    export_checkpoint(str(path), tmp_path / "again", "apache-2.0")
    for name in (WEIGHTS, STATISTICS, OPTIONS, CARD):
        assert (tmp_path / "folder" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert ManifoldModule.load_from_checkpoint(path, weights_only=True).teacher is not None


@pytest.mark.parametrize("stage", ["remixer", "temporal_aggregation", "audio_to_visual", "v2a_mapper"])
def test_every_stage_has_a_folder(tmp_path: Path, stage: str):
    make = {
        "remixer": lambda: make_remixer(save_manifold(tmp_path / "m.ckpt"), num_layers=2),
        "temporal_aggregation": lambda: make_aggregation(flavour="linear"),
        "audio_to_visual": make_translator,
        "v2a_mapper": make_mapper,
    }[stage]
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(make())
    trainer.save_checkpoint(tmp_path / "stage.ckpt")
    (tmp_path / "m.ckpt").unlink(missing_ok=True)  # a Remixer has its manifold in itself
    export_checkpoint(str(tmp_path / "stage.ckpt"), tmp_path / "folder")
    path = import_folder(str(tmp_path / "folder"), tmp_path)
    assert path.name == f"{stage}.ckpt"
    assert_same(*(read_checkpoint(str(file), "checkpoint") for file in (tmp_path / "stage.ckpt", path)))
    assert not (tmp_path / "folder" / STATISTICS).exists()


def test_the_card_is_what_the_hub_reads(trained: str, tmp_path: Path):
    export_checkpoint(trained, tmp_path / "folder", "cc-by-nc-4.0")
    text = (tmp_path / "folder" / CARD).read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "lightning_ss2a",
        "tags": ["audio-generation", "sound-source-aware", "pytorch-lightning", "arxiv:2411.15447"],
        "license": "cc-by-nc-4.0",
    }
    count = sum(x.numel() for x in load_file(tmp_path / "folder" / WEIGHTS).values())
    assert f"# ManifoldModule\n\n{count:,} numbers" in body
    assert "| `manifold.projector_widths` | [16, 16] |" in body
    assert "cc-by-nc-4.0." in body
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(tmp_path / "folder" / CARD)
    assert (card.data.license, card.data.library_name) == ("cc-by-nc-4.0", "lightning_ss2a")
    export_checkpoint(trained, tmp_path / "unlicensed")
    card = hub.ModelCard.load(tmp_path / "unlicensed" / CARD)
    assert card.data.license is None
    assert "Not stated." in card.text


def test_a_folder_that_is_there_is_left_alone(trained: str, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: is there already; choose another folder"):
        export_checkpoint(trained, tmp_path / "folder")
    assert not list((tmp_path / "folder").iterdir())


def test_a_folder_that_cannot_be_made_is_named(trained: str, tmp_path: Path):
    export_checkpoint(trained, tmp_path / "hub")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be the folder of the checkpoint"):
        import_folder(str(tmp_path / "hub"), tmp_path / "file")


def test_a_broken_folder_is_named(trained: str, tmp_path: Path):
    export_checkpoint(trained, tmp_path / "folder")
    options, weights = tmp_path / "folder" / OPTIONS, tmp_path / "folder" / WEIGHTS
    good, content = options.read_text(), weights.read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message) as raised:
            import_folder(str(tmp_path / "folder"), tmp_path / "back")
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "back").exists()

    options.write_text(good.replace("lightning_ss2a.training.manifold.ManifoldModule", "os.system"))
    refused("config.json: names the class 'os.system', knows ")
    options.write_text(good.replace('"lightning_ss2a.training.manifold.ManifoldModule"', "[]"))
    refused(r"config.json: names the class \[\], knows ")
    options.write_text(good.replace("lightning.pytorch.cli.instantiate_module", "os.system"))
    refused("config.json: _instantiator must be lightning.pytorch.cli.instantiate_module, found 'os.system'")
    options.write_text(good.replace('"format": 2', '"format": 1'))
    refused("config.json: its format is 1, this version reads 2")
    options.write_text(good.replace('"width": 12', '"width": 13'))
    refused("size mismatch")
    options.write_text(good)
    weights.write_bytes(content[:-8])
    refused("model.safetensors: not a safetensors file, or a damaged one")
    weights.unlink()
    refused("model.safetensors: no such file")
    with pytest.raises(InputError, match=r"nowhere/config.json: no such file"):
        import_folder(str(tmp_path / "nowhere"), tmp_path / "back")


def test_a_remixers_folder_needs_no_manifold(tmp_path: Path):
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(make_remixer(save_manifold(tmp_path / "m.ckpt")))
    trainer.save_checkpoint(tmp_path / "remixer.ckpt")
    (tmp_path / "m.ckpt").unlink()
    export_checkpoint(str(tmp_path / "remixer.ckpt"), tmp_path / "folder")
    module = RemixerModule.load_from_checkpoint(import_folder(str(tmp_path / "folder"), tmp_path), weights_only=True)
    assert module.manifold.visual_width == 10
