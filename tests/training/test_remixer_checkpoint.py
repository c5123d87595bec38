"""Where a RemixerModule's manifold comes from, and that its checkpoints need no other file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_ss2a.checkpoints import other_architecture
from lightning_ss2a.cli.lightning import main
from lightning_ss2a.errors import InputError
from lightning_ss2a.models import Manifold
from lightning_ss2a.training import RemixerModule
from tests.manifold_examples import (
    AUDIO_WIDTH,
    VISUAL_WIDTH,
    Recorder,
    SaveAfterValidation,
    largest_difference,
    make_data,
    make_module,
    make_trainer,
)
from tests.scene_examples import make_remixer, make_translator, save_manifold, write_learnable_scenes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable_scenes(tmp_path_factory.mktemp("scenes"))


def save(module: Any, path: Path) -> str:
    trainer = make_trainer(path.parent)
    trainer.strategy.connect(module)
    trainer.strategy._lightning_module = module
    trainer.save_checkpoint(path)
    return str(path)


def states(module: RemixerModule) -> dict[str, torch.Tensor]:
    return module.state_dict()


def validate(module: RemixerModule, dataset: str, folder: Path) -> dict[str, float]:
    recorder = Recorder()
    trainer = make_trainer(folder, callbacks=[recorder])
    trainer.validate(module, datamodule=make_data(dataset), verbose=False)
    return recorder.validation[0]


# -------------------------------------------------------------------- the manifold's file


def test_weights_and_architecture_come_from_the_manifold_checkpoint(tmp_path: Path):
    options = {"width": 7, "projector_widths": (9, 9), "reconstructor_widths": (5,), "input_scaling": False}
    path = save_manifold(tmp_path / "manifold.ckpt", 3, dropout=0.4, **options)
    module = make_remixer(path)
    expected = make_module(3, **options).manifold
    assert largest_difference(module.manifold.state_dict(), expected.state_dict()) == 0
    assert module.remixer.manifold_width == 7
    visual = torch.randn(4, VISUAL_WIDTH)
    module.manifold.train()  # no dropout, in any mode
    torch.testing.assert_close(module.manifold.project_visual(visual).mean, expected.eval().project_visual(visual).mean)


def test_the_teacher_is_taken_when_asked(tmp_path: Path):
    path = save_manifold(tmp_path / "manifold.ckpt")
    with pytest.raises(InputError, match=r"manifold.ckpt: has no teacher; it was trained without EMATeacher"):
        make_remixer(path, manifold_teacher=True)
    checkpoint = torch.load(path, weights_only=True)
    teacher = make_module(8).manifold.state_dict()
    checkpoint["state_dict"] |= {f"teacher.{name}": value for name, value in teacher.items()}
    torch.save(checkpoint, path)
    student = make_remixer(path).manifold.state_dict()
    assert largest_difference(make_remixer(path, manifold_teacher=True).manifold.state_dict(), teacher) == 0
    assert largest_difference(student, teacher) > 0.1


def test_wrong_manifolds_are_named(tmp_path: Path):
    manifold = save_manifold(tmp_path / "manifold.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    remixer = save(make_remixer(manifold), tmp_path / "remixer.ckpt")
    translator = save(make_translator(), tmp_path / "translator.ckpt")
    for path, message in [
        (str(tmp_path / "none.ckpt"), "none.ckpt: no such file"),
        (str(tmp_path / "text.ckpt"), "text.ckpt: not a checkpoint of Lightning, or a damaged one"),
        (remixer, r"remixer.ckpt: is no checkpoint of a manifold \(ManifoldModule\)"),
        (translator, r"translator.ckpt: is no checkpoint of a manifold \(ManifoldModule\)"),
    ]:
        with pytest.raises(InputError, match=f"^model.manifold_checkpoint .*{message}"):
            make_remixer(path)
    with pytest.raises(InputError, match=r"model.manifold_checkpoint is missing: train a manifold first"):
        make_remixer(None)
    for widths, name in (((11, AUDIO_WIDTH), "visual_width is 10"), ((VISUAL_WIDTH, 9), "audio_width is 8")):
        message = rf"{name}, and the data's embeddings have (11|9): another encoder"
        with pytest.raises(InputError, match=message):
            RemixerModule(*widths, manifold)


def test_an_untrained_manifold_is_not_trained_on(dataset: str, tmp_path: Path):
    """It can be described without weights, for those of a checkpoint; without one, fitting says so."""
    architecture = make_remixer(save_manifold(tmp_path / "manifold.ckpt")).manifold.options
    module = make_remixer(None, manifold_architecture=architecture)
    assert isinstance(module.manifold, Manifold)
    with pytest.raises(InputError, match="an untrained manifold tells nothing"):
        make_trainer(tmp_path).fit(module, datamodule=make_data(dataset))


# -------------------------------------------------------------------- the Remixer's checkpoint


@pytest.mark.parametrize("options", [{}, {"use_global": False, "validate_cycle_mix": True, "variant": "published"}])
def test_a_checkpoint_needs_no_other_file_and_gives_the_same_numbers(dataset: str, tmp_path: Path, options: dict):
    manifold = save_manifold(tmp_path / "manifold.ckpt")
    module, recorder = make_remixer(manifold, **options), Recorder()
    trainer = make_trainer(tmp_path, callbacks=[recorder, SaveAfterValidation(tmp_path)])
    trainer.fit(module, datamodule=make_data(dataset))
    Path(manifold).unlink()
    again = RemixerModule.load_from_checkpoint(tmp_path / "012.ckpt", weights_only=True)
    assert largest_difference(again.state_dict(), module.state_dict()) == 0
    assert not any(p.requires_grad for p in again.manifold.parameters())
    assert validate(again, dataset, tmp_path) == pytest.approx(recorder.validation[-1], rel=1e-5, abs=1e-6)
    # It can be trained further, from its own checkpoint.
    trainer = make_trainer(tmp_path, max_epochs=3)
    trainer.fit(again, datamodule=make_data(dataset), ckpt_path=tmp_path / "012.ckpt", weights_only=True)
    assert trainer.global_step == 18
    state, before = again.state_dict(), module.state_dict()
    frozen = [name for name in state if name.startswith("manifold.")]
    assert all(torch.equal(state[name], before[name]) for name in frozen)


def test_a_checkpoint_of_the_command_needs_no_other_file(dataset: str, tmp_path: Path, capsys):
    manifold = save_manifold(tmp_path / "manifold.ckpt")
    common = [
        "--model=RemixerModule",
        "--data=ShardDataModule",
        f"--data.datasets={dataset}",
        "--data.batch_size=8",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--trainer.use_distributed_sampler=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    sizes = [
        "--model.remixer.width=16",
        "--model.remixer.num_heads=2",
        "--model.remixer.head_widths=[16]",
        "--model.measuring.top_n=4",
    ]
    main(["fit", *common, f"--model.manifold_checkpoint={manifold}", *sizes, "--trainer.max_epochs=1"])
    (checkpoint,) = tmp_path.rglob("checkpoints/*.ckpt")
    weights = torch.load(manifold, weights_only=True)["state_dict"]
    Path(manifold).unlink()
    again = RemixerModule.load_from_checkpoint(checkpoint, weights_only=True)
    assert all(torch.equal(again.state_dict()[name], weights[name]) for name in weights)
    capsys.readouterr()
    main(["validate", *common, "--ckpt_path", str(checkpoint)])
    assert "val/ssms_baseline/source_mean" in capsys.readouterr().out


# -------------------------------------------------------------------- resuming


def fit_by_command(folder: Path, dataset: str, manifold: str, *options: str) -> Path:
    """Train by the command for some epochs; the newest run's folder."""
    config = {
        "model": {
            "class_path": "RemixerModule",
            "init_args": {"remixer": {"width": 16, "num_heads": 2, "head_widths": [16]}},
        },
        "data": {"class_path": "ShardDataModule", "init_args": {"datasets": dataset, "batch_size": 8}},
    }
    (folder / "small.json").write_text(json.dumps(config))
    trainer = [f"--trainer.{option}" for option in (f"default_root_dir={folder}", "accelerator=cpu", "devices=1")]
    model = [f"--model.manifold_checkpoint={manifold}", "--model.measuring.top_n=4"]
    arguments = ["-c", str(folder / "small.json"), *model]
    main(["fit", *arguments, *trainer, *options])
    return sorted((folder / "lightning_logs").glob("version_*"))[-1]


def test_a_run_is_not_resumed_on_another_manifold(tmp_path: Path, dataset: str, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (save_manifold(tmp_path / f"manifold{seed}.ckpt", seed) for seed in (0, 1))
    recorder, module = Recorder(), make_remixer(first)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[recorder])
    trainer.fit(module, datamodule=make_data(dataset))
    trainer.save_checkpoint(tmp_path / "remixer.ckpt")
    other = make_remixer(second)
    with pytest.raises(
        InputError, match=r"trained on another manifold \(.*manifold0.ckpt\) than that of .*manifold1.ckpt"
    ):
        make_trainer(tmp_path, max_epochs=2).fit(
            other, datamodule=make_data(dataset), ckpt_path=tmp_path / "remixer.ckpt", weights_only=True
        )


def test_a_module_of_known_architecture_reads_its_manifold_when_it_is_fitted(tmp_path: Path, dataset: str):
    """As a run's saved config gives it, without a checkpoint to resume from."""
    manifold = save_manifold(tmp_path / "manifold.ckpt", 5)
    known = make_remixer(manifold)
    module = make_remixer(manifold, manifold_architecture=known.manifold.options)
    assert largest_difference(module.manifold.state_dict(), known.manifold.state_dict()) > 0.01
    make_trainer(tmp_path, max_epochs=1).fit(module, datamodule=make_data(dataset))
    assert largest_difference(module.manifold.state_dict(), known.manifold.state_dict()) == 0
    narrow = replace(known.manifold.options, width=3)
    with pytest.raises(InputError, match=r"manifold.ckpt: not of model.manifold_architecture"):
        make_trainer(tmp_path).fit(make_remixer(manifold, manifold_architecture=narrow), datamodule=make_data(dataset))


def test_a_run_goes_on_by_the_command_when_its_manifold_is_gone(tmp_path: Path, dataset: str, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifold = save_manifold(tmp_path / "manifold.ckpt")
    run = fit_by_command(tmp_path, dataset, manifold, "--trainer.max_epochs=1")
    (checkpoint,) = (run / "checkpoints").glob("*.ckpt")
    Path(manifold).unlink()
    resumed = fit_by_command(tmp_path, dataset, manifold, "--trainer.max_epochs=2", f"--ckpt_path={checkpoint}")
    (last,) = (resumed / "checkpoints").glob("*.ckpt")
    before, after = (torch.load(path, weights_only=True) for path in (checkpoint, last))
    assert after["global_step"] == 2 * before["global_step"]
    for name, value in before["state_dict"].items():
        assert torch.equal(after["state_dict"][name], value) == name.startswith("manifold."), name


def test_a_residual_is_kept_in_checkpoints_and_older_ones_have_none(tmp_path: Path):
    module = make_remixer(save_manifold(tmp_path / "manifold.ckpt"), residual="mean")
    path = save(module, tmp_path / "remixer.ckpt")
    assert RemixerModule.load_from_checkpoint(path, weights_only=True).remixer.options.residual == "mean"
    plain = make_remixer(str(tmp_path / "manifold.ckpt")).architecture
    older = {"remixer": {name: value for name, value in plain["remixer"].items() if name != "residual"}}
    assert list(other_architecture(module.architecture, older)) == [("remixer.residual", "mean", "none")]
    assert not list(other_architecture(plain, older))


@pytest.mark.parametrize(
    "option",
    [
        "--model.remixer.num_heads=4",
        "--model.remixer.num_layers=2",
        "--model.remixer.unit_mean=true",
        "--model.remixer.residual=mean",
    ],
)
def test_another_architecture_than_the_checkpoints_is_named(tmp_path: Path, dataset: str, capsys, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    run = fit_by_command(tmp_path, dataset, save_manifold(tmp_path / "manifold.ckpt"), "--trainer.max_epochs=1")
    (path,) = (run / "checkpoints").glob("*.ckpt")
    data = ["--data=ShardDataModule", f"--data.datasets={dataset}"]
    with pytest.raises(SystemExit) as end:
        main(["validate", "--model=RemixerModule", *data, f"--ckpt_path={path}", option])
    assert end.value.code == 2
    name = option.partition("=")[0].removeprefix("--")
    assert f".ckpt has {name}" in capsys.readouterr().err
