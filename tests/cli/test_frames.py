"""`ss2a shards frames`: its options reach the generator, and what is wrong is said in one line."""

from pathlib import Path

import pytest

from lightning_ss2a.cli.ss2a import main
from lightning_ss2a.data import Manifest
from tests.manifold_examples import make_data, make_trainer
from tests.scene_examples import make_remixer, save_manifold, write_learnable_scenes, write_learnable_videos


def run(arguments: list[str], capsys) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["shards", "frames", *arguments])
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


@pytest.fixture
def world(tmp_path: Path, monkeypatch) -> Path:
    """Videos of visual frames, and a Remixer."""
    monkeypatch.chdir(tmp_path)
    write_learnable_videos(Path("videos"), {"train": 3, "validation": 2}, role="visual")
    module = make_remixer(save_manifold(tmp_path / "manifold.ckpt"))
    trainer = make_trainer(tmp_path, max_epochs=1, limit_val_batches=0, limit_train_batches=1)
    trainer.fit(module, datamodule=make_data(write_learnable_scenes(Path("scenes"))))
    trainer.save_checkpoint("remixer.ckpt")
    return tmp_path


def test_frames(world: Path, capsys):
    options = ["--sampling=draw", "--seed=3", "--videos_at_once=2", "--device=cpu"]
    status, out, error = run(["videos", "out folder", "remixer.ckpt", *options], capsys)
    assert (status, error) == (0, "")  # no progress bar where there is no terminal
    assert "out folder: 5 videos of generated audio embeddings" in out
    assert "lightning fit -c configs/temporal_aggregation.yaml --data.datasets 'out folder'" in out
    manifest = Manifest.load(world / "out folder")
    assert manifest.fields["frames"].encoder.startswith("ss2a-draw:remixer.ckpt:")
    assert {split: manifest.rows(split) for split in manifest.splits} == {"train": 3, "validation": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["videos", "out", "none.ckpt"], "checkpoint none.ckpt: no such file"),
        (["videos", "out", "manifold.ckpt"], "is no checkpoint of a RemixerModule"),
        (["scenes", "out", "remixer.ckpt"], "a data set of kind scenes"),
        (["videos", "scenes", "remixer.ckpt"], "scenes: holds a finished data set"),
        (["videos", "videos", "remixer.ckpt", "--overwrite=true"], "the output is the source"),
        (["videos", "out", "remixer.ckpt", "--sampling=best"], "sampling"),
        (["videos", "out"], "checkpoint"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(world: Path, capsys, arguments: list[str], message: str):
    status, out, error = run(arguments, capsys)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not (world / "out").exists()
    assert (world / "videos" / "manifest.json").exists()
